"""Cards: what the Hub reads of them, what a person reads, and that they say no more than is known."""

import copy
import dataclasses

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from avb_hf.data.sources import SOURCES
from avb_hf.evaluation.corpora import CORPORA
from avb_hf.evaluation.metrics import METRICS
from avb_hf.evaluation.model_card import CardFacts, gather_scores, make_model_card, write_model_card
from avb_hf.evaluation.statistics import bootstrap_intervals
from avb_hf.tasks import TASKS, TaskSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORD = {
    "flags": {
        "source": "avb", "freeze": "feature_encoder", "freeze_blocks": 3, "max_steps": -1, "num_train_epochs": 20.0,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-4, "optim": "adamw",
        "weight_decay": 0.05, "lr_scheduler_type": "cosine", "warmup_steps": 0.06, "seed": 42, "bf16": False,
        "backbone_learning_rate": 1e-5, "load_best_model_at_end": True,
    },
    "command": ["/somewhere/run_avb.py", "--task", "high", "--team_name", "two words"],
    "versions": {"avb_hf": "1.2.3", "torch": "2.13.0"},
    "model": {
        "base_model": "facebook/wav2vec2-large-lv60", "base_model_revision": COMMIT, "feature_layer": 12, "rnn": "lstm",
        "pooling": "last", "pool_over": "logits", "loss": "ccc", "encoder_config": {"model_type": "wav2vec2"},
    },
    "audio": {"train": {"clips": 120, "hours": 0.5}, "validation": {"clips": 40, "hours": 0.25}},
    "processes": {"world_size": 2},
}  # fmt: skip


def make_facts(task=TASKS["high"], prefix="test", **changes):
    """Facts of a run that was scored on forty clips of eight speakers, whose last label nobody rated."""
    rng = np.random.default_rng(3)
    scores, speakers = rng.random((40, len(task.labels))), [str(clip % 8) for clip in range(40)]
    labels = (scores + 0.3 * rng.standard_normal(scores.shape)).clip(0, 1)
    labels[:, -1] = np.nan
    if task.is_classification:
        labels = np.arange(40) % (len(task.labels) - 1)
    results = {f"{prefix}_{name}": value for name, value in METRICS[task.metric](scores, labels, task).items()}
    intervals = bootstrap_intervals(task, scores, labels, speakers, num_resamples=50)
    splits = [gather_scores(results, task, "test", prefix, intervals, "speakers")]
    return CardFacts("owls", "me/owls", task, copy.deepcopy(RECORD), splits, "cc-by-nc-4.0"), results, intervals


def change(facts, part, **values):
    """The same facts with other values in a part of the record."""
    return dataclasses.replace(facts, record=facts.record | {part: facts.record[part] | values})


def test_every_source_has_words_for_its_corpus():
    assert set(SOURCES) <= set(CORPORA)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_hub_reads_scores_and_origins(task, tmp_path):
    facts, results, _ = make_facts(task)
    write_model_card(facts, tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.pipeline_tag, data.library_name) == (
        "cc-by-nc-4.0", "audio-classification", "transformers",
    )  # fmt: skip
    assert (data.base_model, data.datasets) == ("facebook/wav2vec2-large-lv60", ["hume-vb"])
    each = "recall" if task.is_classification else "ccc"
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found.pop(f"{task.metric.upper()}, mean") == pytest.approx(results[f"test_{task.metric}"], abs=5e-5)
    scored = {label for label in task.labels if f"test_{each}_{label}" in results}
    assert len(found) == len(scored) == len(task.labels) - 1
    for label in scored:
        name = f"{each if task.is_classification else 'CCC'} of {label}"
        assert found[name] == pytest.approx(results[f"test_{each}_{label}"], abs=5e-5)
    assert {(result.dataset_type, result.dataset_split, result.task_type) for result in data.eval_results} == {
        ("hume-vb", "test", "audio-classification")
    }


def rows_of(text):
    """Cells of all lines that are rows of a table."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_person_reads_each_score_with_its_interval(task):
    facts, results, intervals = make_facts(task)
    text = make_model_card(facts).text
    each = "recall" if task.is_classification else "ccc"
    rows = {cells[0]: cells[1:] for cells in rows_of(text)}
    for label in task.labels[:-1]:
        low, high = intervals.labels[label]
        expected = [f"{results[f'test_{each}_{label}']:.3f}", f"[{low:.3f}, {high:.3f}]"]
        assert rows[label] == [*expected, f"{results[f'test_n_{label}']:.0f}"]
    assert rows[task.labels[-1]][:2] == ["-", ""]
    mean = rows[f"**{task.metric.upper()}, mean**"]
    low, high = intervals.headline
    assert mean == [f"{results[f'test_{task.metric}']:.3f}", f"[{low:.3f}, {high:.3f}]", "40"]
    assert "from a bootstrap over speakers" in text


def test_a_person_reads_what_made_the_model_and_what_it_is_not_for():
    text = make_model_card(make_facts()[0]).text
    for words in (
        "no lie detector and no diagnostic", "acted on request", "China, South Africa, the United States and Venezuela",
        f"facebook/wav2vec2-large-lv60 at commit `{COMMIT}`", "| clips a step | 16 |", "| train | 120 | 0.50 |",
        "torchrun --nproc_per_node 2 run_avb.py --task high --team_name 'two words'", "avb_hf 1.2.3, torch 2.13.0.",
        "arXiv:2210.00263", "arXiv:2207.03572", "block 12", "feature_encoder, and 3 transformer blocks", "from 0 to 1",
    ):  # fmt: skip
        assert words in text
    assert "\n\n\n" not in text
    assert "None" not in text.replace("None was chosen", "")


@pytest.mark.parametrize(
    ("program", "processes", "here", "expected"),
    [
        ("/somewhere/run_avb.py", 1, None, "python run_avb.py"),
        ("/somewhere/avb_hf/__main__.py", 1, 1, "python -m avb_hf"),
        ("/somewhere/bin/avb", 1, None, "avb"),
        ("/somewhere/bin/avb", 2, None, "torchrun --nproc_per_node 2 -m avb_hf"),
        ("/somewhere/avb_hf/__main__.py", 2, 2, "torchrun --nproc_per_node 2 -m avb_hf"),
        ("run_avb.py", 16, 8, "torchrun --nnodes 2 --nproc_per_node 8 run_avb.py"),
        ("run_avb.py", 3, 1, "torchrun --nnodes 3 --nproc_per_node 1 run_avb.py"),
        ("run_avb.py", 3, 2, "torchrun --nproc_per_node 3 run_avb.py"),  # machines that hold unlike numbers
    ],
)
def test_the_command_starts_as_many_processes_as_trained(program, processes, here, expected):
    record = {"command": [program, "train"], "machine": {"processes": here}, "processes": {"world_size": processes}}
    facts = make_facts()[0]
    text = make_model_card(dataclasses.replace(facts, record=facts.record | record)).text
    block = text.partition("## Training")[2].partition("\n```\n")[2].partition("\n```")[0]
    assert block.splitlines()[-1] == f"{expected} train"
    machines = [line for line in block.splitlines() if line.startswith("#")]
    assert [line.split()[4] for line in machines] == ([] if "nnodes" not in expected else [expected.split()[2]])


def test_nothing_is_assumed():
    facts = dataclasses.replace(make_facts()[0], license=None, splits=[])
    facts = change(facts, "model", base_model=None, base_model_revision=None)
    card = make_model_card(change(facts, "flags", source="manifest"))
    header = yaml.safe_load(str(card).split("---")[1])
    assert set(header) == {"library_name", "metrics", "pipeline_tag", "tags"}
    assert "None was chosen: terms of the training data may bind the weights" in card.text
    assert "It was not scored" in card.text
    assert "not known to this card" in card.text


def test_a_dataset_of_the_hub_is_named_and_a_folder_is_not(tmp_path):
    facts = change(make_facts()[0], "flags", source="hub", dataset_name="me/bursts", dataset_revision=COMMIT)
    data = make_model_card(facts).data
    assert data.datasets == ["me/bursts"]
    assert {(result.dataset_type, result.dataset_revision) for result in data.eval_results} == {("me/bursts", COMMIT)}
    card = make_model_card(change(facts, "flags", dataset_name=str(tmp_path)))
    assert card.data.datasets is None
    assert str(tmp_path) not in str(card)


def test_a_checkpoint_has_a_short_card():
    facts = dataclasses.replace(make_facts()[0], progress="step 3 of 60, epoch 1")
    text = make_model_card(facts).text
    assert "not at its end: step 3 of 60, epoch 1" in text
    assert {"## Use", "## Intended use and limits", "## Scores"} <= set(text.splitlines())
    assert not {"## Training", "## Citation"} & set(text.splitlines())


def test_names_that_mean_something_to_markdown_or_python_stay_names():
    task = TaskSpec("mine", ("a|b", "c"), label_range=(0.0, 1.0))
    facts = dataclasses.replace(make_facts(task)[0], location='folder "x"')
    text = make_model_card(facts).text
    assert "| a\\|b |" in text
    line = next(line for line in text.splitlines() if "model=" in line)
    assert eval(line.partition("model=")[2].rpartition(", trust")[0]) == 'folder "x"'


def test_a_model_without_its_code_says_what_it_needs():
    card = make_model_card(dataclasses.replace(make_facts()[0], travels=False))
    assert card.data.library_name is None
    assert "trust_remote_code" not in card.text
    assert "This needs avb_hf" in card.text
