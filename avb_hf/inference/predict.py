"""Score the clips of a corpus: row by row for a script, or into a file by a job that survives its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from avb_hf.data.contents import find_row
from avb_hf.inference.batch_plan import BatchPlan
from avb_hf.inference.clip_list import ClipList, list_clips, read_lengths
from avb_hf.inference.clip_scorer import ClipScorer
from avb_hf.inference.job import Job, order_rows
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.score_files import as_mapping, check_suffix, columns_of
from avb_hf.inference.scorer import make_scorer
from avb_hf.inference.timing import Choice, choose
from avb_hf.model import VocalBurstFeatureExtractor

# Processes meet before and after the work, of which one may have far more than another.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class PredictionReport:
    """What came of scoring a corpus into a file.

    Attributes:
        output: The file.
        clips: Number of its rows.
        failed: How many of them have no scores, and say why.
        bad: The first 20 of those, and why.
        choice: How clips were run.
        was_complete: Whether nothing had to be done.
        audio_seconds: Length of the audio that this call scored, by all processes; known to the main one.
        elapsed: Seconds that this took, loading the model and measuring left out.
    """

    output: Path
    clips: int
    failed: int
    bad: Sequence[str]
    choice: Choice
    was_complete: bool
    audio_seconds: float
    elapsed: float

    def describe(self) -> str:
        """Say it in one line, and one for each of the first 20 clips without scores."""
        rows = f"{self.output}: {self.clips} clips" + (f", {self.failed} of them without scores" if self.failed else "")
        more = [f"... and {self.failed - len(self.bad)} more"] if self.failed > len(self.bad) else []
        return "\n  ".join([f"{rows}; {self._describe_work()}", *self.bad, *more])

    def _describe_work(self) -> str:
        if self.was_complete:
            return "it was complete already, of the same checkpoint, options and inputs"
        return (
            f"{self.audio_seconds:.1f} s of audio in {self.elapsed:.1f} s, "
            f"{self.audio_seconds / self.elapsed:.1f} audio-seconds per second, "
            f"{self.choice.precision} in batches of {self.choice.batch_size}"
        )


def predict(
    model: PreTrainedModel | str | os.PathLike,
    inputs: str | Path | Sequence[str | Path],
    args: PredictArguments | None = None,
    feature_extractor: VocalBurstFeatureExtractor | None = None,
) -> Iterator[dict[str, Any]]:
    """Score clips in one process; `pandas.DataFrame(predict(...))` is a table of them.

    Args:
        model: A fine-tuned model, Hub id or folder of one, or an ONNX file of one; a model itself is brought to float32
            and to evaluation mode.
        inputs: Audio files, folders or tables, as `list_clips` takes them.
        args: How clips are read and scored.
        feature_extractor: The extractor of a model that is given itself.

    Returns:
        For each clip, in the order of the inputs, `file`, a score by the name of each label (the probability, where the
        labels are classes), and `error`: None, or why the clip cannot be used, and then the scores are None.

    Raises:
        ValueError: If model or inputs cannot be used, or a clip cannot and `args.on_bad_audio` is `error`.
    """
    args = args or PredictArguments()
    scorer, clips = _set_up(model, inputs, args, feature_extractor, _join(args))
    return _score_all(scorer, clips, args)


def predict_to_file(
    model: PreTrainedModel | str | os.PathLike,
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    args: PredictArguments | None = None,
    feature_extractor: VocalBurstFeatureExtractor | None = None,
    overwrite: bool = False,
) -> PredictionReport:
    """Score clips into a CSV, JSONL or Parquet file, alone or as one of the processes of Accelerate or torchrun.

    The file appears when it is complete, and `<output>.json` beside it says what it was made of. Until then the work so
    far is in the folder `<output>.journal`, where batches and precision are fixed at the first start: after a kill the
    same call goes on there, with any number of processes, and ends with the same bytes.

    Args:
        model: A fine-tuned model, Hub id or folder of one, or an ONNX file of one; a model itself is brought to float32
            and to evaluation mode.
        inputs: Audio files, folders or tables, as `list_clips` takes them.
        output: The file; its suffix says of which kind. All processes must see its folder.
        args: How clips are read and scored.
        feature_extractor: The extractor of a model that is given itself.
        overwrite: Whether to replace a file, or a journal, of another checkpoint, other options or other inputs.

    Raises:
        ValueError: If model or inputs cannot be used, the output is an input or holds clips, there is another such file
            or journal, or a clip cannot be used and `args.on_bad_audio` is `error`.
    """
    args, output = args or PredictArguments(), Path(output)
    check_suffix(output)
    _check_inputs(inputs, output)
    state = _join(args)
    scorer, clips = _set_up(model, inputs, args, feature_extractor, state)
    _check_clips(clips, output)
    job = Job(output, scorer, clips, args)
    with job.journal.claimed() if state.is_main_process else nullcontext():
        done = _take_up(job, scorer, args, overwrite) if state.is_main_process else None
        was_complete = broadcast_object_list([done])[0] is None
        started, audio_seconds = time.perf_counter(), 0.0
        if not was_complete:
            _score_share(job, scorer, state)
        state.wait_for_everyone()
        elapsed = time.perf_counter() - started
        if done is not None:
            audio_seconds = job.finish() - done
        state.wait_for_everyone()
    outcome, choice = job.read_record()
    return PredictionReport(
        output, outcome.clips, outcome.failed, outcome.bad, choice, was_complete, audio_seconds, elapsed
    )


def _join(args: PredictArguments) -> PartialState:
    """Join the processes that were started together; on a CPU they do not meet unless it is named."""
    return PartialState(cpu=args.use_cpu or not torch.accelerator.is_available(), timeout=_PATIENCE)


def _check_inputs(inputs: str | Path | Sequence[str | Path], output: Path) -> None:
    """Refuse to write over what is read."""
    for source in [inputs] if isinstance(inputs, str | Path) else inputs:
        if Path(source).resolve() == output.resolve():
            raise ValueError(f"{output} is an input: choose another output")


def _check_clips(clips: ClipList, output: Path) -> None:
    """Refuse to write over a file that holds clips, whatever it is called in the inputs."""
    if not output.exists():
        return
    rows = map(find_row, clips.paths)
    files = dict.fromkeys(path if row is None else row.file for path, row in zip(clips.paths, rows, strict=True))
    for file in files:
        if os.path.exists(file) and os.path.samefile(file, output):
            raise ValueError(f"{output} holds clips of the input: choose another output")


def _set_up(
    model: PreTrainedModel | str | os.PathLike,
    inputs: str | Path | Sequence[str | Path],
    args: PredictArguments,
    feature_extractor: VocalBurstFeatureExtractor | None,
    state: PartialState,
) -> tuple[ClipScorer, ClipList]:
    clips = list_clips([inputs] if isinstance(inputs, str | Path) else inputs, args.path_column)
    scorer = make_scorer(model, feature_extractor, args, state.device)
    columns_of(scorer.config.label_names)
    return scorer, clips


def _measure(scorer: ClipScorer, clips: ClipList, args: PredictArguments) -> tuple[np.ndarray, Choice]:
    lengths = read_lengths(
        clips, scorer.data_args, scorer.config.min_samples, scorer.num_workers, scorer.stops_at_bad_audio
    )
    return lengths, choose(scorer, clips, lengths, args)


def _score_all(scorer: ClipScorer, clips: ClipList, args: PredictArguments) -> Iterator[dict[str, Any]]:
    lengths, choice = _measure(scorer, clips, args)
    plan = BatchPlan(lengths, choice.batch_size, choice.max_samples)
    with tqdm(total=len(clips), desc="scoring", unit="clip", disable=None) as bar:
        for window, batches in plan.windows():
            parts = []
            with scorer.running(choice.precision), closing(scorer.load_ahead(clips, batches)) as loaded:
                for batch in map(scorer.score, loaded):
                    parts.append((batch.clips, batch.scores, batch.errors))
                    bar.update(len(batch.clips))
            for row in order_rows(window, clips, parts):
                yield as_mapping(row, scorer.config.label_names)


def _take_up(job: Job, scorer: ClipScorer, args: PredictArguments, overwrite: bool) -> float | None:
    """Leave a journal to work by, and return the seconds of audio that are done; None if there is nothing to do."""
    if job.is_complete():
        job.drop_journal()
        return None
    if not job.is_begun(overwrite):
        job.begin(*_measure(scorer, clips=job.clips, args=args))
    return job.journal.find_batches()


def _score_share(job: Job, scorer: ClipScorer, state: PartialState) -> None:
    """Score this process's batches of those that are not done: dealt by number, so that nobody need be asked."""
    plan, choice = job.read_plan()
    job.journal.open(state.process_index)
    job.journal.find_batches()

    def mine() -> Iterator[tuple[int, np.ndarray]]:
        for number, batch in plan.batches():
            if number % state.num_processes == state.process_index and number not in job.journal:
                yield number, batch

    total = sum(len(batch) for _, batch in mine())
    bar = tqdm(total=total, desc="scoring", unit="clip", disable=None if state.is_main_process else True)
    try:
        with bar, scorer.running(choice.precision), closing(scorer.load_ahead(job.clips, mine())) as loaded:
            for batch in loaded:
                job.journal.add(scorer.score(batch))
                bar.update(len(batch.clips))
    finally:
        job.journal.close()
