"""From the flags of `avb reproduce` to an experiment, whose runs are planned and whose corpora can be read."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import yaml

from avb_hf.data.arguments import DataArguments
from avb_hf.data.sources import infer_task, list_clips
from avb_hf.experiments.arguments import ReproduceArguments
from avb_hf.experiments.emogator import CLASSES, GIVEN, scores_on_emogator, tasks_on_emogator, write_indicators
from avb_hf.experiments.experiment import Experiment
from avb_hf.experiments.grid import END2YOU, EXTRACTORS, FULL, RECIPES, TINY, Settings
from avb_hf.experiments.padding import PaddingStudy
from avb_hf.experiments.paper import PaperTables
from avb_hf.experiments.published import read_published
from avb_hf.experiments.tiny import tiny_extractors
from avb_hf.tasks import TASKS, check_choice

STUDIES = {"padding": PaddingStudy}
PAPER = "paper"


def make_experiment(
    args: ReproduceArguments, data: DataArguments, root: Path, typed: Collection[str] = ()
) -> Experiment:
    """Plan the runs that the flags ask for.

    Args:
        args: What is reproduced.
        data: On what.
        root: Folder of the runs, absolute; for EmoGator it takes up the table of the indicators, but for a dry run.
        typed: Names of the flags of the data that were given, be it with their default.

    Raises:
        ValueError: If flags contradict each other, or data cannot be used.
    """
    data, backbone, flags = _resolved(data), args.model_name_or_path, tuple(shlex.split(args.train_flags))
    if backbone is not None and Path(backbone).is_dir():
        backbone = str(Path(backbone).resolve())
    if (backbone is None) != (args.study is None and data.source != "emogator"):
        raise ValueError("--model_name_or_path is the backbone of a study, or of the tables on --source emogator")
    if args.study is not None:
        return STUDIES[args.study](data, infer_task(data), str(backbone), flags)
    tables, recipe = args.tables or [], args.recipe or PAPER
    check_choice("--source (of the tables)", data.source, ("avb", "demo", "emogator"))
    if data.task is not None:
        raise ValueError(f"the tables say which tasks there are: leave out --task {data.task}")
    check_choice("--recipe", recipe, tuple(RECIPES))
    pinned = _against_recipe(data, recipe, typed)
    flags, scale = ((*RECIPES[recipe], *flags), TINY) if args.tiny else (flags, FULL)
    if data.source == "emogator":
        tasks, by_task = tasks_on_emogator(data, root)
        settings = Settings(tasks, by_task, recipe, {GIVEN: str(backbone)}, scale, flags, pinned)
        if not args.dry_run:
            write_indicators(settings.tasks[CLASSES], data, root)
        return PaperTables(scores_on_emogator(read_published(), END2YOU), tables, settings, args.team_name)
    by_task = {score.task: replace(data, task=score.task) for score in read_published()}
    for word in {score.task for score in read_published() if score.table in tables}:
        list_clips(TASKS[word], by_task[word], [])
    extractors = tiny_extractors() if args.tiny else EXTRACTORS
    tasks = {word: TASKS[word] for word in by_task}
    settings = Settings(tasks, by_task, recipe, extractors, scale, flags, pinned)
    return PaperTables(read_published(), tables, settings, args.team_name)


def _against_recipe(data: DataArguments, recipe: str, typed: Collection[str]) -> frozenset[str]:
    """Return the names of the flags that were given and that the recipe has otherwise."""
    said = yaml.safe_load(files("avb_hf").joinpath("recipes", f"{recipe}.yaml").read_text(encoding="utf-8"))
    given = said.keys() & set(typed) & vars(data).keys()
    return frozenset(name for name in given if getattr(data, name) != said[name])


def _resolved(data: DataArguments) -> DataArguments:
    """Make paths absolute: commands may be run elsewhere. A task may be a key, and a dataset be on the Hub."""
    folder, manifest, split_file = (
        path and str(Path(path).resolve()) for path in (data.data_dir, data.manifest, data.split_file)
    )
    task, dataset = data.task, data.dataset_name
    if task is not None and Path(task).suffix in (".yaml", ".yml") and Path(task).is_file():
        task = str(Path(task).resolve())
    if dataset is not None and Path(dataset).is_dir():
        dataset = str(Path(dataset).resolve())
    return replace(data, data_dir=folder, manifest=manifest, split_file=split_file, task=task, dataset_name=dataset)
