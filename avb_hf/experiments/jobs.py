"""A run, and the same run with a seed and a folder: what `avb` is to be called with, and whether it is done."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avb_hf.baselines.run_functionals import ALL_RESULTS
from avb_hf.data.arguments import DataArguments
from avb_hf.evaluation.contest import contest_file_name
from avb_hf.tasks import TaskSpec
from avb_hf.training.checkpoints import whole_files
from avb_hf.training.outcome import PREFIXES, TEST, VALIDATION
from avb_hf.training.run_folder import MODEL_FILES, PREDICTIONS

RUNS = "runs"
# Team in the name of the contest file that a run leaves; the user's is in the name of what is handed in.
TEAM = "team"
# Flags that say where the data lie, and those whose value may be a path that says what they are by its name alone.
LOCATIONS, MAY_BE_PATHS = ("--data_dir", "--manifest", "--split_file"), ("--task", "--dataset_name")
VALIDATION_RESULTS, TEST_RESULTS = (f"{PREFIXES[split]}_results.json" for split in (VALIDATION, TEST))


@dataclass(frozen=True)
class Run:
    """What is trained on what, whatever the seed.

    Attributes:
        label: What it is, in a word that a folder can bear.
        words: Command and flags of `avb`, all but those of seed, folder and team.
        task: What it predicts.
        shape: What its costs depend on besides the epochs, such as extractor and RNN.
        states: Whose frozen states it reads, where it reads any.
    """

    label: str
    words: tuple[str, ...]
    task: TaskSpec = field(compare=False)
    shape: str = field(default="", compare=False)
    states: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """The label and a digest of the flags, so that a run with other flags has another folder.

        Where the data lie makes no difference: they may be moved.
        """
        words = shlex.join(_without_places(self.words))
        return f"{self.label}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Job:
    """A run with a seed.

    Attributes:
        run: What is trained.
        seed: Seed of weights, order and dropout.
        root: Folder below which all runs are.
    """

    run: Run
    seed: int
    root: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.run.key}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return self.root / RUNS / self.name

    @property
    def log(self) -> Path:
        """The file that takes what it writes to the screen."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def argv(self) -> list[str]:
        """What `avb` is called with, for a log; the same call goes on where an earlier one was cut off."""
        ending = ["--seed", str(self.seed), "--output_dir", str(self.folder), "--team_name", TEAM]
        return [*self.run.words, *ending, "--disable_tqdm", "true", "--resume", "auto"]

    @property
    def contest_file(self) -> Path | None:
        """The contest file that it leaves where the corpus has a test split; None if its task is no contest's."""
        if self.run.task.submission_name is None:
            return None
        return self.folder / contest_file_name(TEAM, 1, self.run.task)

    def is_finished(self) -> bool:
        """Whether all that it should leave is there and as it was sealed; of the model, only its size is looked at."""
        results, of_test = {ALL_RESULTS, VALIDATION_RESULTS, PREDICTIONS}, {TEST_RESULTS}
        if self.contest_file is not None:
            of_test.add(self.contest_file.name)
        whole = whole_files(self.folder, to_read=results | of_test)
        wanted = results | MODEL_FILES | (of_test if TEST_RESULTS in whole else set())
        return wanted <= whole


def make_jobs(runs: Sequence[Run], seeds: Sequence[int], root: Path) -> list[Job]:
    """Return all runs with the first seed, then all with the next, so that every cell is filled early."""
    return [Job(run, seed, root) for seed in seeds for run in runs]


def data_words(data: DataArguments, pinned: Collection[str] = ()) -> list[str]:
    """Return the flags that make such arguments, those at their default left out but for the source.

    Args:
        data: The arguments.
        pinned: Names of flags that are not left out, since a recipe has them otherwise.
    """
    words = ["--source", data.source]
    for flag in dataclasses.fields(data):
        value = getattr(data, flag.name)
        if flag.name != "source" and (value != flag.default or flag.name in pinned):
            values = value if isinstance(value, list) else [value]
            texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
            words += [f"--{flag.name}", *texts]
    return words


def _without_places(words: Sequence[str]) -> Iterator[str]:
    for before, word in zip(("", *words), words, strict=False):
        if before in MAY_BE_PATHS and Path(word).is_absolute():
            yield Path(word).name
        elif before not in LOCATIONS and word not in LOCATIONS:
            yield word
