"""Predictions come in the dataset's order, each clip once, whatever the number of clips, batch size and processes."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torch.distributed as dist
from datasets import Dataset

from avb_hf.data.collator import VocalBurstCollator
from avb_hf.tasks import TASKS
from avb_hf.training.arguments import ModelArguments
from avb_hf.training.build import build_model
from avb_hf.training.trainer import VocalBurstTrainer
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

COUNTS = (1, 7, 13, 16, 17, 49)
BATCH_SIZES = (1, 3, 8)
TASK_NAMES = ("two", "type")  # a regression and a classification
CASES = list(product(TASK_NAMES, COUNTS, BATCH_SIZES))
UNSCORED = ("two", 1)  # one clip has no CCC: it is predicted as an unlabelled split is
PRINTED_DIGITS = 4
RUN_SCRIPT = Path(__file__).parents[2] / "run_avb.py"
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def make_clips(task):
    """Rows of 49 clips of different lengths and levels, decoded."""
    rng = np.random.default_rng(5)
    for number in range(max(COUNTS)):
        audio = rng.standard_normal(int(rng.integers(1_000, 6_000))).astype(np.float32).cumsum()
        labels = number % len(task.labels) if task.is_classification else rng.random(len(task.labels)).tolist()
        yield {"file_id": f"{number:05d}", "duration": len(audio) / 16_000, "audio": audio / 100, "labels": labels}


def make_split(clips):
    """A split of such rows, which decodes its clips when they are asked for."""
    waves = {clip["file_id"]: clip["audio"] for clip in clips}
    rows = Dataset.from_list([{name: value for name, value in clip.items() if name != "audio"} for clip in clips])
    return rows.with_transform(lambda batch: batch | {"audio": [waves[file_id] for file_id in batch["file_id"]]})


def make_model(task, backbone):
    torch.manual_seed(2)
    model, extractor = build_model(task, ModelArguments(encoder_config=json.dumps(backbone), rnn_hidden_size=8), "none")
    torch.nn.init.normal_(model.classifier.weight, std=3.0)  # scores of different clips must lie far apart
    return model.eval(), extractor


def printed(metrics):
    """The scores as they are shown, without the word that they begin with; no times, no epoch."""
    return {
        name.partition("_")[2]: f"{value:.{PRINTED_DIGITS}f}"
        for name, value in metrics.items()
        if name.startswith(("test_", "eval_")) and not name.endswith(("_runtime", "_per_second", "_time"))
    }


def predict_all(backbone, folder):
    """Predict and evaluate in every case; give predictions, the scores of both, and the clips in batches' order."""
    results = {}
    for task, batch_size in product((TASKS[name] for name in TASK_NAMES), BATCH_SIZES):
        model, extractor = make_model(task, backbone)
        collate, collated = VocalBurstCollator(extractor, task), []

        def remember(rows, collate=collate, collated=collated):
            collated.extend(row["file_id"] for row in rows)
            return collate(rows)

        args = VocalBurstTrainingArguments(
            output_dir=str(folder), per_device_eval_batch_size=batch_size, use_cpu=True, disable_tqdm=True, do_eval=True
        )
        trainer = VocalBurstTrainer(
            task=task, args=args, model=model, processing_class=extractor, data_collator=remember
        )
        for count in COUNTS:
            clips = make_split(list(make_clips(task))[:count])
            collated.clear()
            if (task.name, count) == UNSCORED:
                predictions, scores = trainer.predict(clips.remove_columns("labels")).predictions, []
            else:
                output = trainer.predict(clips)
                predictions, scores = output.predictions, [printed(output.metrics)]
            seen = list(collated)
            if scores:
                scores.append(printed(trainer.evaluate(clips)))
            results[task.name, count, batch_size] = torch.from_numpy(predictions), scores, seen
    return results


@pytest.fixture(scope="module")
def alone(tiny_backbone):
    """Scores of each clip by itself, straight from the model: `(49, labels)` by task."""
    scores = {}
    for task in (TASKS[name] for name in TASK_NAMES):
        model, extractor = make_model(task, tiny_backbone)
        with torch.no_grad():
            rows = [model(**extractor([clip["audio"]], return_tensors="pt")).logits[0] for clip in make_clips(task)]
        scores[task.name] = torch.stack(rows).numpy()
    return scores


@pytest.fixture(scope="module")
def one_process(tiny_backbone, tmp_path_factory):
    """What one process makes of all cases."""
    return predict_all(tiny_backbone, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two_processes(tiny_backbone, tmp_path_factory):
    """What two processes make of all cases; clips are those that the first of them saw."""
    folder = tmp_path_factory.mktemp("two")
    words = [*TWO_PROCESSES, __file__, json.dumps(tiny_backbone), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt")


def test_clips_can_be_told_apart_by_their_scores(alone):
    for scores in alone.values():
        distances = np.abs(scores[:, None] - scores[None]).max(axis=2)
        assert distances[~np.eye(len(scores), dtype=bool)].min() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("task", "count", "batch_size"), CASES)
def test_one_process_predicts_in_order(one_process, alone, task, count, batch_size):
    predictions, _, seen = one_process[task, count, batch_size]
    clips = list(make_clips(TASKS[task]))[:count]
    assert seen == [clip["file_id"] for clip in sorted(clips, key=lambda clip: -len(clip["audio"]))]
    np.testing.assert_allclose(predictions, alone[task][:count], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "count", "batch_size"), CASES)
def test_two_processes_predict_in_order(two_processes, alone, task, count, batch_size):
    predictions, _, seen = two_processes[task, count, batch_size]
    assert count < batch_size * 2 or set(seen) < {f"{number:05d}" for number in range(count)}
    np.testing.assert_allclose(predictions, alone[task][:count], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "count"), [case for case in product(TASK_NAMES, COUNTS) if case != UNSCORED])
def test_scores_depend_neither_on_batch_size_nor_processes(one_process, two_processes, task, count):
    runs = [results[task, count, size][1] for results in (one_process, two_processes) for size in BATCH_SIZES]
    scores = [of_one for of_both in runs for of_one in of_both]
    assert len(scores) == 12
    assert TASKS[task].metric in scores[0]
    for other in scores[1:]:
        assert other == scores[0]


@pytest.mark.slow
def test_the_command_in_two_processes_writes_each_clip_once_in_order(corpus_dir, tiny_flags, tmp_path):
    from avb_hf import Wav2Vec2ForVocalBurst
    from avb_hf.model import VocalBurstFeatureExtractor

    flags = [*tiny_flags, "--num_train_epochs", "1", "--use_cpu", "true", "--per_device_eval_batch_size", "2"]
    words = [*TWO_PROCESSES, RUN_SCRIPT, "--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / "run"]
    done = subprocess.run([*map(str, words), *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", dtype={"file_id": str})
    labels = pd.read_csv(corpus_dir / "labels" / TASKS["two"].label_file, dtype=str)
    for split, word in (("validation", "Val"), ("test", "Test")):
        expected = labels.loc[labels["Split"] == word, "File_ID"].str.strip("[]")
        assert table.loc[table["split"] == split, "file_id"].tolist() == expected.tolist()
    assert table["file_id"].is_unique
    model = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / "run")
    extractor = VocalBurstFeatureExtractor.from_pretrained(tmp_path / "run")
    for row in table.itertuples():
        wave, _ = soundfile.read(corpus_dir / "audio" / "any" / f"{row.file_id}.wav", dtype="float32")
        with torch.no_grad():
            scores = model(**extractor(wave, return_tensors="pt")).logits[0]
        np.testing.assert_allclose([row.Valence, row.Arousal], scores, rtol=0, atol=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = predict_all(json.loads(sys.argv[1]), sys.argv[2])
    if dist.get_rank() == 0:
        torch.save(made, Path(sys.argv[2]) / "results.pt")
    dist.destroy_process_group()
