"""`--push_to_hub`: what a run makes goes to its repository in commits of which each can be loaded."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy
from transformers.utils import CONFIG_NAME

from avb_hf.data.hub_account import HubRepo, check_repo, make_repo
from avb_hf.data.hub_commit import Head, commit_files, find_head
from avb_hf.training.arguments import RunArguments
from avb_hf.training.processes import on_first
from avb_hf.training.push_stage import (
    BEST,
    LAST,
    clear_stages,
    is_checkpoint,
    link,
    link_checkpoint,
    model_files,
    open_stage,
    unpickle_stage,
)
from avb_hf.training.run_folder import RESULTS
from avb_hf.training.run_record import RESOLVED_CONFIG, compare_records
from avb_hf.training.training_arguments import VocalBurstTrainingArguments
from avb_hf.whole_files import read_json

logger = logging.getLogger(__name__)

# Strategy: the folder that a checkpoint to go on from is pushed to beside the model; None pushes the model alone.
CHECKPOINT_FOLDERS: dict[str, str | None] = {
    "end": None,
    "every_save": None,
    "checkpoint": LAST,
    "all_checkpoints": "checkpoint-{step}",
}

# What the systems that are trained here call their models; only such may be replaced by a push.
MODEL_TYPES = ("vocal_burst", "emo18")

# Writes a model into a folder, so that it can be loaded from there.
SaveModel = Callable[[Path], None]


class PushError(OSError):
    """What a run made is on the disk, and did not get to the Hub."""


def check_push(args: VocalBurstTrainingArguments, run_args: RunArguments) -> HubRepo | None:
    """Find out whether a run that is to be pushed can be; None if it is not to be.

    Raises:
        ValueError: On every process, if it cannot, as `avb_hf.data.hub_account.check_repo` says, trains nothing, or
            would overwrite a model of another kind.
        OSError: So as well, if the Hub cannot be reached.
    """
    if not args.push_to_hub:
        return None
    if not (args.do_train or run_args.resume):
        raise ValueError("--push_to_hub pushes what is trained: it needs --do_train, or --resume of a run that was")
    name = args.hub_model_id or Path(str(args.output_dir)).absolute().name
    asked = HubRepo(name, is_private=args.hub_private_repo is not False, revision=args.hub_revision)
    return on_first(lambda: _require_our_kind(check_repo(asked)))


def _require_our_kind(repo: HubRepo) -> HubRepo:
    """Refuse a repository with another kind of model, which a push would overwrite; return the others."""
    head = find_head(repo)
    if head is not None and CONFIG_NAME in head.names:
        with tempfile.TemporaryDirectory() as there:
            kind = read_json(head.fetch(CONFIG_NAME, there)).get("model_type")
        if kind not in MODEL_TYPES:
            raise ValueError(
                f"{repo.repo_id} holds a model of another kind, which would be overwritten: its model_type is "
                f"{kind!r}, and may be one of {list(MODEL_TYPES)}; choose another --hub_model_id"
            )
    return repo


class Publisher:
    """Pushes a run.

    Args:
        repo: Where to, as `check_push` found it.
        args: The run's arguments: its folder, `hub_strategy` and `hub_always_push`.
        say: Shows a text to the user.
    """

    def __init__(self, repo: HubRepo, args: VocalBurstTrainingArguments, say: Callable[[str], None]) -> None:
        self.repo, self.say = repo, say
        self.folder = Path(str(args.output_dir))
        strategy = HubStrategy(args.hub_strategy).value
        self.checkpoint_folder = CHECKPOINT_FOLDERS[strategy]
        self.pushes_while_training = strategy != "end"
        self.always = args.hub_always_push
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._running: list[Future[None]] = []
        self._waiting: tuple[Path, str] | None = None  # stage and title of a push that came while another one ran
        self._log: list[dict[str, Any]] = []  # of the run, as its newest checkpoint holds it
        self._shown: set[str] = set()
        self._own: set[str] = set()  # folders in the repository that are known to be of this run

    def begin(self) -> None:
        """Make the repository, which shows that it can be written to."""
        make_repo(self.repo)
        clear_stages(self.folder)

    def push_checkpoint(self, checkpoint: Path, best: str | None, title: str, save_model: SaveModel | None) -> None:
        """Push a checkpoint in the background; a push that fails is told and leaves the training alone.

        Unless every one is pushed, it waits while another one runs, where a run is to go on from it: the next one takes
        its place, and `finish` pushes the last. A model alone is left out.

        Args:
            checkpoint: The checkpoint, sealed.
            best: The best one so far, or None.
            title: Of the commit.
            save_model: Writes the model into a folder, where the checkpoint does not hold it as it is to be pushed.
        """
        if not self.pushes_while_training:
            return
        is_late = not self.always and any(not push.done() for push in self._running)
        if is_late and self.checkpoint_folder is None:
            logger.info("%s is not pushed, since the push before it still runs (--hub_always_push)", checkpoint.name)
            return
        self._report()
        try:
            stage = self._stage(checkpoint, best, save_model)
            self._log = _read_log(checkpoint)
        except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
            logger.warning("%s was not pushed, and the training goes on: %s", checkpoint.name, error)
            return
        if self._waiting is not None:
            shutil.rmtree(self._waiting[0], ignore_errors=True)
        self._waiting = (stage, title)
        if is_late:
            logger.info("%s waits for the push before it (--hub_always_push does not wait)", checkpoint.name)
        else:
            self._push_waiting()

    def finish(self) -> None:
        """Push the checkpoint that waits, if one does, wait for what is being pushed, and tell what failed."""
        self._push_waiting()
        if any(not push.done() for push in self._running):
            logger.info("waiting for the push to %s", self.repo.repo_id)
        wait(self._running)
        self._report()

    def push_result(self) -> str:
        """Push the model in the run's folder, its card and its scores, and return the commit.

        Raises:
            PushError: If that fails; the model is on the disk.
        """
        self.finish()
        self._log = _read_log(self.folder)
        files = model_files(self.folder, RESULTS)
        self._show(files)
        try:
            commit = self._commit(files, "End of training")
        except (ValueError, OSError) as error:
            raise PushError(
                f"{self.folder} holds the whole model, but it was not pushed: {error}; the same command with --resume "
                "auto pushes it without training again"
            ) from error
        self.say(f"pushed to {commit.repo_url} ({self.repo.visibility}), commit {commit.oid}")
        return commit.oid

    def _push_waiting(self) -> None:
        if self._waiting is not None:
            self._running.append(self._pool.submit(self._push_stage, *self._waiting))
            self._waiting = None

    def _stage(self, checkpoint: Path, best: str | None, save_model: SaveModel | None) -> Path:
        step = int(checkpoint.name.rpartition("-")[2])
        stage = open_stage(self.folder, step)
        try:
            if save_model is None:
                link(model_files(checkpoint), stage)
            else:
                save_model(stage)
            if self.checkpoint_folder is not None:
                name = self.checkpoint_folder.format(step=step)
                link_checkpoint(checkpoint, best, stage, name)
                link({RESOLVED_CONFIG: self.folder / RESOLVED_CONFIG}, stage / name)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        return stage

    def _push_stage(self, stage: Path, title: str) -> None:
        try:
            unpickle_stage(stage)
            files = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
            self._show(files)
            commit = self._commit(files, title)
            logger.info("pushed %r: commit %s", title, commit.oid)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _commit(self, files: dict[str, Path], title: str) -> CommitInfo:
        commit = commit_files(self.repo, files, title, lambda head: self._find_stale(files, head))
        self._own |= _folders(files)
        return commit

    def _find_stale(self, files: dict[str, Path], head: Head) -> list[str]:
        """Return what goes with a commit of files: what older ones left in their folders, other runs, other scores."""
        replaced = _folders(files) | self._find_foreign(head, _folders(files))
        if replaced:
            replaced.add(BEST)
        old = {*RESULTS, *(name for name in head.names if "/" in name and name.partition("/")[0] in replaced)}
        return [name for name in head.names if name in old and name not in files]

    def _find_foreign(self, head: Head, pushed: set[str]) -> set[str]:
        """Return the folders with checkpoints of other runs, by the records in them; one without is not from here.

        A record may differ from that of a run that went on with other flags: such a checkpoint is told by its log.
        """
        foreign: set[str] = set()
        for name in sorted(filter(is_checkpoint, _folders(head.names) - pushed - self._own)):
            if f"{name}/{RESOLVED_CONFIG}" not in head.names:
                continue
            with tempfile.TemporaryDirectory() as there:
                theirs = read_json(head.fetch(f"{name}/{RESOLVED_CONFIG}", there))
                changes = compare_records(theirs, read_json(self.folder / RESOLVED_CONFIG))
                is_earlier = bool(changes) and self._is_earlier(head, name, there)
            if changes and not is_earlier:
                logger.warning("%s of %s is of another run and goes: %s", name, head.repo.repo_id, "; ".join(changes))
                foreign.add(name)
            else:
                self._own.add(name)
        return foreign

    def _is_earlier(self, head: Head, name: str, there: str) -> bool:
        """Whether a checkpoint's log is how this run's begins: no two runs take the same time for each evaluation."""
        if f"{name}/{TRAINER_STATE_NAME}" not in head.names:
            return False
        log = _read_log(head.fetch(f"{name}/{TRAINER_STATE_NAME}", there).parent)
        return json.dumps(log) == json.dumps(self._log[: len(log)])  # as text, NaN equals itself

    def _show(self, files: dict[str, Path]) -> None:
        """Show the names of files that are about to be pushed, unless the same ones were shown before."""
        if set(files) != self._shown:
            self._shown = set(files)
            lines = [f"  {name}  {path.stat().st_size:,} bytes" for name, path in files.items()]
            self.say("\n".join([f"what is pushed to {self.repo.repo_id}:", *lines]))

    def _report(self) -> None:
        """Tell which of the pushes that have ended failed."""
        ended = [push for push in self._running if push.done()]
        self._running = [push for push in self._running if push not in ended]
        for error in filter(None, (push.exception() for push in ended)):
            logger.warning("a push failed, and the training went on; the next one holds all again: %s", error)


def _read_log(folder: Path) -> list[dict[str, Any]]:
    """Return what a run had logged when it wrote its state into a folder; nothing if it did not yet."""
    path = folder / TRAINER_STATE_NAME
    return read_json(path)["log_history"] if path.is_file() else []


def _folders(names: Iterable[str]) -> set[str]:
    """Return the folders in the root of a repository that paths lie in."""
    return {name.partition("/")[0] for name in names if "/" in name}
