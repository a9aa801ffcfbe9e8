"""What a run leaves: scores on disk and screen, predictions, and the contest file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import DatasetDict
from scipy.special import softmax

from avb_hf.data.clips import is_labelled
from avb_hf.evaluation.contest import contest_file_name, write_contest_file
from avb_hf.evaluation.prediction_files import read_predictions, write_predictions
from avb_hf.evaluation.result_table import result_table
from avb_hf.tasks import TaskSpec
from avb_hf.training.checkpoints import whole_files
from avb_hf.training.run_folder import PREDICTIONS, seal_results
from avb_hf.training.trainer import VocalBurstTrainer

logger = logging.getLogger(__name__)

VALIDATION, TEST = "validation", "test"
# Split: the word that its scores begin with.
PREFIXES = {VALIDATION: "eval", TEST: "test"}


@dataclass(frozen=True)
class Predictions:
    """The scores of one split, in its order.

    Attributes:
        file_ids: File_ID of each clip.
        scores: Intensities or class probabilities of shape `(num_clips, num_labels)`.
    """

    file_ids: list[str]
    scores: np.ndarray


def check_contest_name(team_name: str, submission: int, task: TaskSpec) -> None:
    """Refuse, before anything is trained, a team name or number that no contest file can bear."""
    if task.submission_name is not None:
        contest_file_name(team_name, submission, task)


def names_of_results(trainer: VocalBurstTrainer, splits: DatasetDict, team_name: str, submission: int) -> set[str]:
    """Return the names of the files that a run leaves beside the model when all that is asked for is done.

    Args:
        trainer: Says by its arguments what is asked for.
        splits: The corpus.
        team_name: Team in a contest file's name.
        submission: Number in a contest file's name.
    """
    args, task = trainer.args, trainer.task
    asked = {"train": args.do_train, "eval": args.do_eval and VALIDATION in splits}
    asked["test"] = args.do_predict and TEST in splits
    names = {f"{step}_results.json" for step, is_asked in asked.items() if is_asked} | {"all_results.json"}
    if asked["eval"] or asked["test"]:
        names.add(PREDICTIONS)
    if asked["test"] and task.submission_name is not None:
        names.add(contest_file_name(team_name, submission, task))
    return names


def train(trainer: VocalBurstTrainer, folder: Path, checkpoint: str | None, is_trained: bool) -> None:
    """Train if that is asked for and not done already, and seal the model.

    Args:
        trainer: Holds the model and says by its arguments what is asked for.
        folder: The output folder.
        checkpoint: Where to go on from, or None.
        is_trained: Whether the folder holds the trained model already.

    Raises:
        StoppedBySignalError: If a signal stopped the training.
    """
    if is_trained:
        trainer.load_trained(folder)
        if trainer.card is not None:
            trainer.card.take_up(folder, PREFIXES)
    elif trainer.args.do_train:
        trainer.train_and_save(checkpoint)
        if trainer.is_world_process_zero():
            seal_results(folder)
        trainer.stop_if_told()


def score_and_predict(trainer: VocalBurstTrainer, splits: DatasetDict, task: TaskSpec) -> dict[str, Predictions]:
    """Predict the splits that are asked for, and score those that are labelled, on disk and screen.

    Args:
        trainer: Holds the model and says by its arguments what is asked for.
        splits: The corpus, decoding its clips.
        task: What the model predicts.

    Returns:
        Predictions by split.
    """
    wanted = {VALIDATION: trainer.args.do_eval, TEST: trainer.args.do_predict}
    predictions: dict[str, Predictions] = {}
    for name, prefix in PREFIXES.items():
        if not wanted[name]:
            continue
        if name not in splits:
            logger.info("there is no %s split, so it is not predicted", name)
            continue
        split = splits[name]
        labelled = is_labelled(split, task)
        output = trainer.predict(split if labelled else split.remove_columns("labels"), metric_key_prefix=prefix)
        scores = softmax(output.predictions, axis=1) if task.is_classification else output.predictions
        predictions[name] = Predictions(split.with_format(None)["file_id"][:], scores)
        trainer.save_metrics(prefix, output.metrics)
        if labelled and trainer.card is not None and trainer.is_world_process_zero():
            trainer.card.add_scores(name, prefix, output.metrics, scores, split)
        if labelled:
            trainer.say(f"\n{name}\n{result_table(output.metrics, task, prefix)}")
    return predictions


def write_files(
    predictions: dict[str, Predictions], task: TaskSpec, folder: Path, team_name: str, submission: int
) -> None:
    """Write `predictions.csv`, and the test split as a contest file if the task is one of the challenge's.

    Rows that an earlier call wrote of a split that this one did not predict stay.

    Args:
        predictions: Predictions by split.
        task: What was predicted.
        folder: The output folder.
        team_name: Team in the contest file's name.
        submission: Number in the contest file's name.
    """
    if predictions:
        everything = _with_earlier(predictions, folder, task)
        write_predictions(
            folder / PREDICTIONS,
            [file_id for part in everything.values() for file_id in part.file_ids],
            [name for name, part in everything.items() for _ in part.file_ids],
            np.concatenate([part.scores for part in everything.values()]),
            task,
        )
    if TEST in predictions and task.submission_name is not None:
        test = predictions[TEST]
        path = write_contest_file(folder, team_name, submission, test.file_ids, test.scores, task)
        logger.info("contest file: %s", path)


def _with_earlier(predictions: dict[str, Predictions], folder: Path, task: TaskSpec) -> dict[str, Predictions]:
    """Return, in the splits' order, the predictions with those of other splits that the folder holds whole."""
    found = dict(predictions)
    if PREDICTIONS in whole_files(folder, {PREDICTIONS}):
        dtype = next(iter(predictions.values())).scores.dtype
        for name, rows in read_predictions(folder / PREDICTIONS, task).groupby("split"):
            scores = rows[list(task.labels)].to_numpy(dtype)
            found.setdefault(str(name), Predictions(rows["file_id"].tolist(), scores))
    return {name: found[name] for name in PREFIXES if name in found}
