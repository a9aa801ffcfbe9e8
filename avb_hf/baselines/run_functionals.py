"""A run of a feature baseline: functionals, an MLP of each seed, and what the best of them leaves."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import DatasetDict

from avb_hf import __version__
from avb_hf.baselines.functionals import FEATURE_SETS, FeatureSet, extract_functionals, opensmile_version
from avb_hf.baselines.functionals_arguments import FunctionalsArguments
from avb_hf.baselines.mlp import CONFIG, WEIGHTS, Examples, MlpEstimator
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import describe_audio, is_labelled
from avb_hf.data.findings import Finding
from avb_hf.data.fingerprint import fingerprint
from avb_hf.data.sources import infer_task, load_corpus, resolve_commit, splits_were_drawn
from avb_hf.data.splits import subsample
from avb_hf.evaluation.contest import contest_file_name
from avb_hf.evaluation.metrics import METRICS
from avb_hf.evaluation.result_table import result_table
from avb_hf.tasks import TaskSpec, check_choice
from avb_hf.training.checkpoints import whole_files
from avb_hf.training.outcome import PREFIXES, TEST, VALIDATION, Predictions, check_contest_name, write_files
from avb_hf.training.run_folder import PREDICTIONS, begin, check_output_dir, seal_results
from avb_hf.training.run_record import FREE_TO_CHANGE, RECORDED_PACKAGES, RESOLVED_CONFIG
from avb_hf.whole_files import read_json, write_json

logger = logging.getLogger(__name__)

ALL_RESULTS, SEED_RESULTS = "all_results.json", "seed_results.json"
TRAIN = "train"
# Parts of the record that tell one run from another.
BINDING = ("system", "flags", "task", "data")


class SeedRun(NamedTuple):
    """The MLP of one seed.

    Attributes:
        seed: Its seed.
        mlp: The trained estimator.
        predictions: Final scores or class probabilities `(num_clips, num_labels)` by split.
        results: Scores by name, with the split's prefix, of the splits that have labels.
    """

    seed: int
    mlp: MlpEstimator
    predictions: dict[str, np.ndarray]
    results: dict[str, float]


def run_functionals(system: str, data: DataArguments, args: FunctionalsArguments) -> dict[str, float]:
    """Extract functionals, train an MLP with each seed, and leave of the best on validation what `avb train` leaves.

    Beside those files, `seed_results.json` has the headline scores of each seed. A finished run of the same flags and
    data is recognised and left as it is; one that was cut off is done again, with the functionals that were made.

    Args:
        system: Key of `FEATURE_SETS`.
        data: Which clips and labels to read, and how.
        args: How to run.

    Returns:
        The content of `all_results.json`: scores of the best seed by name, `best_seed`, `num_seeds`, of each labelled
        split the headline's `<prefix>_over_seeds_mean` and, over two seeds or more, `<prefix>_over_seeds_std` (sample
        standard deviation), and seconds.

    Raises:
        ImportError: If openSMILE is not installed.
        ValueError: If flags or data cannot be used, or the folder holds something else.
    """
    check_choice("system", system, tuple(FEATURE_SETS))
    opensmile_version()
    data.dataset_revision = resolve_commit(data)
    task, folder = infer_task(data), Path(str(args.output_dir))
    check_contest_name(args.team_name, args.submission, task)
    MlpEstimator(task, args)  # refuses a loss that does not fit
    _check_folder(folder, args.overwrite)
    skipped: list[Finding] = []
    corpus = load_corpus(task, dataclasses.replace(data, max_train_samples=None, max_eval_samples=None), skipped)
    splits = subsample(corpus, data.max_train_samples, data.max_eval_samples, data.split_seed)
    for name in (TRAIN, VALIDATION):
        if not is_labelled(splits[name], task):
            raise ValueError(f"the {name} split has no label, so nothing can be trained or chosen by it")
    record = _make_record(system, task, splits, skipped, [data, args])
    if not args.overwrite and _is_finished(folder, record, _names_of_results(splits, task, args)):
        logger.info("the run in %s is finished: nothing to do", folder)
        return read_json(folder / ALL_RESULTS)
    examples, seconds = _make_examples(splits, task, FEATURE_SETS[system], data, args.num_workers)
    begin(folder, record, corpus if splits_were_drawn(data) else None, overwrite=True)
    return _carry_out(splits, task, examples, seconds, folder, args)


def _carry_out(
    splits: DatasetDict,
    task: TaskSpec,
    examples: dict[str, Examples],
    seconds: float,
    folder: Path,
    args: FunctionalsArguments,
) -> dict[str, float]:
    """Train and write; `seconds` is what making the examples took."""
    began = time.perf_counter()
    labelled = _labelled(splits, task)
    runs = [_run_seed(seed, task, args, examples, labelled) for seed in args.seeds]
    best = max(runs, key=lambda run: run.results[task.headline])
    runtimes = {"train_runtime": round(time.perf_counter() - began, 4), "cache_runtime": seconds}
    results = best.results | _over_seeds(runs, best, task, labelled) | runtimes
    best.mlp.save(folder)
    _write_results(folder, results, runs, task, labelled)
    file_ids = {name: splits[name].with_format(None)["file_id"][:] for name in best.predictions}
    predictions = {name: Predictions(file_ids[name], scores) for name, scores in best.predictions.items()}
    write_files(predictions, task, folder, args.team_name, args.submission)
    seal_results(folder)
    return results


def _run_seed(
    seed: int, task: TaskSpec, args: FunctionalsArguments, examples: dict[str, Examples], labelled: list[str]
) -> SeedRun:
    mlp = MlpEstimator(task, args).fit(examples[TRAIN], examples[VALIDATION], seed)
    predictions = {name: mlp.predict(examples[name].functionals) for name in PREFIXES if name in examples}
    results = {
        f"{PREFIXES[name]}_{key}": value
        for name in labelled
        for key, value in METRICS[task.metric](predictions[name], examples[name].labels, task).items()
    }
    return SeedRun(seed, mlp, predictions, results)


def _over_seeds(runs: list[SeedRun], best: SeedRun, task: TaskSpec, labelled: list[str]) -> dict[str, float]:
    over: dict[str, float] = {"best_seed": best.seed, "num_seeds": len(runs)}
    for name in labelled:
        prefix = PREFIXES[name]
        scores = [run.results[f"{prefix}_{task.metric}"] for run in runs]
        over[f"{prefix}_over_seeds_mean"] = float(np.mean(scores))
        if len(runs) > 1:
            over[f"{prefix}_over_seeds_std"] = float(np.std(scores, ddof=1))
    return over


def _write_results(
    folder: Path, results: dict[str, float], runs: list[SeedRun], task: TaskSpec, labelled: list[str]
) -> None:
    """Write all scores, those of each split and those of each seed, and log the tables."""
    headlines = [f"{PREFIXES[name]}_{task.metric}" for name in labelled]
    seeds = [
        {"seed": run.seed, "epochs": len(run.mlp.validation_scores), "best_epoch": run.mlp.best_epoch}
        | {headline: run.results[headline] for headline in headlines}
        for run in runs
    ]
    write_json(folder / SEED_RESULTS, seeds)
    write_json(folder / ALL_RESULTS, results)
    for name in labelled:
        prefix = PREFIXES[name]
        write_json(folder / f"{prefix}_results.json", {k: v for k, v in results.items() if k.startswith(f"{prefix}_")})
        logger.info("%s, seed %d\n%s", name, results["best_seed"], result_table(results, task, prefix))
    for row in seeds:
        told = ", ".join(f"{name} {row[name]:.4f}" for name in headlines)
        logger.info("seed %d, epoch %d of %d: %s", row["seed"], row["best_epoch"], row["epochs"], told)


def _make_examples(
    splits: DatasetDict, task: TaskSpec, feature_set: FeatureSet, data: DataArguments, num_workers: int | None
) -> tuple[dict[str, Examples], float]:
    """Bring functionals and labels together, and tell the seconds that the functionals took."""
    began = time.perf_counter()
    functionals = extract_functionals(splits, feature_set, data, num_workers)
    seconds = round(time.perf_counter() - began, 4)
    dtype = np.int64 if task.is_classification else np.float64
    labels = {name: np.asarray(split.with_format(None)["labels"][:], dtype) for name, split in splits.items()}
    return {name: Examples(functionals[name], labels[name]) for name in splits}, seconds


def _labelled(splits: DatasetDict, task: TaskSpec) -> list[str]:
    return [name for name in PREFIXES if name in splits and is_labelled(splits[name], task)]


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with files of others, which must be neither kept nor deleted."""
    if overwrite:
        check_output_dir(folder, None, overwrite)
    elif folder.exists() and not (folder / RESOLVED_CONFIG).is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run: choose another --output_dir")


def _names_of_results(splits: DatasetDict, task: TaskSpec, args: FunctionalsArguments) -> set[str]:
    names = {WEIGHTS, CONFIG, ALL_RESULTS, SEED_RESULTS, PREDICTIONS}
    names |= {f"{PREFIXES[name]}_results.json" for name in _labelled(splits, task)}
    if TEST in splits and task.submission_name is not None:
        names.add(contest_file_name(args.team_name, args.submission, task))
    return names


def _is_finished(folder: Path, record: dict[str, Any], wanted: set[str]) -> bool:
    """Whether the run in the folder is this one and done.

    Raises:
        ValueError: If it is another one.
    """
    if not (folder / RESOLVED_CONFIG).is_file():
        return False
    before, after = (_binding(facts) for facts in (read_json(folder / RESOLVED_CONFIG), record))
    changes = [
        f"{name}: {before.get(name)!r} is now {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if changes:
        raise ValueError(
            f"{folder} holds another run; choose another --output_dir, or --overwrite it. What differs:\n  "
            + "\n  ".join(changes)
        )
    return whole_files(folder) >= wanted


def _binding(record: dict[str, Any]) -> dict[str, Any]:
    """Flatten what tells one run from another to `part.name`."""
    free = FREE_TO_CHANGE | {"num_workers"}
    return {
        f"{part}.{name}": value for part in BINDING for name, value in record.get(part, {}).items() if name not in free
    }


def _make_record(
    system: str, task: TaskSpec, splits: DatasetDict, skipped: list[Finding], arguments: list[Any]
) -> dict[str, Any]:
    """Collect what makes a run: flags, versions, task, data."""
    versions = {"avb_hf": __version__, "python": sys.version.split()[0], "opensmile": opensmile_version()}
    record = {
        "system": {"name": system, "feature_set": FEATURE_SETS[system].name},
        "flags": {name: value for group in arguments for name, value in vars(group).items()},
        "command": sys.argv,
        "versions": versions | {name: version(name) for name in RECORDED_PACKAGES},
        "task": dataclasses.asdict(task),
        "data": fingerprint(splits),
        "audio": describe_audio(splits),
        "skipped": [dataclasses.asdict(finding) for finding in skipped],
    }
    return json.loads(json.dumps(record, default=str))
