"""`--resume_from_hub`: a checkpoint that was pushed, made into one that a run here can go on from."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from avb_hf.data.hub_account import HubRepo
from avb_hf.data.hub_errors import asking_the_hub
from avb_hf.training.arguments import RunArguments
from avb_hf.training.checkpoints import PREFIX, find_damage, newest_whole
from avb_hf.training.processes import on_first
from avb_hf.training.push_stage import BEST, is_checkpoint, restore_pickles
from avb_hf.training.run_folder import check_output_dir
from avb_hf.training.run_record import RESOLVED_CONFIG, find_changes
from avb_hf.whole_files import read_json

logger = logging.getLogger(__name__)

_FETCHED = ".fetched.tmp"
# Files of a pushed checkpoint that tell how far it is, and of which run.
_TOLD_BY = (TRAINER_STATE_NAME, RESOLVED_CONFIG)


def resume_from_hub(run_args: RunArguments, folder: Path, repo: HubRepo | None) -> None:
    """Do what `--resume_from_hub` asks for, if it is given: fetch a checkpoint that is newer, and resume by itself.

    Args:
        run_args: The flags, of which `resume` is set to `auto`.
        folder: The output folder of the run.
        repo: Where the run is pushed to, or None; there need be no checkpoint there yet.

    Raises:
        ValueError: On every process, if the flag goes with others that contradict it, or as `fetch_checkpoint` says.
        OSError: So as well, if the Hub refuses or is not reached.
    """
    asked = run_args.resume_from_hub
    if asked is None:
        return
    if run_args.resume not in (None, "auto") or run_args.overwrite:
        raise ValueError(
            "--resume_from_hub goes on with a run: leave out --overwrite, and --resume of another checkpoint"
        )
    is_ours = repo is not None and repo.repo_id == asked
    if not (run_args.dry_run or run_args.estimate):
        revision, may_differ = repo.revision if is_ours and repo else None, run_args.allow_changed_args
        on_first(lambda: fetch_checkpoint(asked, revision, folder, is_ours, may_differ))
    run_args.resume = "auto"


def fetch_checkpoint(repo_id: str, revision: str | None, folder: Path, may_be_absent: bool, may_differ: bool) -> None:
    """Bring the newest checkpoint of a repository, and the best one, into a run's folder, unless one there is as new.

    Args:
        repo_id: The repository, which a run with `--hub_strategy checkpoint` or `all_checkpoints` pushed to.
        revision: Branch, tag or commit; None is the main branch.
        folder: The output folder of the run.
        may_be_absent: Whether there need be no checkpoint yet.
        may_differ: Whether the run in the folder may be another one than that of the checkpoint.

    Raises:
        ValueError: If there is none, it is not as it was pushed, or the folder holds something else.
        OSError: If the Hub refuses or is not reached.
    """
    fetched = folder / _FETCHED
    shutil.rmtree(fetched, ignore_errors=True)
    check_output_dir(folder, "auto", overwrite=False)  # once a checkpoint is there, it looks like a run of ours
    commit, names = _list_files(repo_id, revision, may_be_absent)
    found = [name for name in sorted({name.partition("/")[0] for name in names}) if is_checkpoint(name)]
    found = [name for name in found if {f"{name}/{file}" for file in _TOLD_BY} <= set(names)]
    if not found:
        if may_be_absent:
            logger.info("there is no checkpoint in %s yet: the run begins", repo_id)
            return
        raise ValueError(f"--resume_from_hub: {repo_id} holds no checkpoint; --hub_strategy checkpoint pushes such")
    try:
        _download(repo_id, commit, [f"{name}/{file}" for name in found for file in _TOLD_BY], fetched)
        newest = max(found, key=lambda name: _read_state(fetched / name).global_step)
        if not may_differ:
            _require_same_run(fetched / newest, folder, repo_id)
        step = _read_state(fetched / newest).global_step
        if _step_of(folder) >= step:
            logger.info("%s is as new as what %s holds", folder, repo_id)
            return
        _download(repo_id, commit, [f"{newest}/*", f"{BEST}/*"], fetched)
        _put_in_place(fetched, newest, folder)
        logger.info("fetched the checkpoint of step %d, commit %s of %s", step, commit, repo_id)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


def _step_of(folder: Path) -> int:
    """Return the step that the run in a folder has come to: that of its newest whole checkpoint, or its last."""
    newest = newest_whole(folder)
    at_checkpoint = 0 if newest is None else int(Path(newest).name.removeprefix(PREFIX))
    end = folder / TRAINER_STATE_NAME
    return max(at_checkpoint, read_json(end)["global_step"] if end.is_file() else 0)


def _require_same_run(checkpoint: Path, folder: Path, repo_id: str) -> None:
    """Refuse a checkpoint of another run than the one that the folder keeps the record of, if it keeps one."""
    ours = folder / RESOLVED_CONFIG
    changes = find_changes(checkpoint, read_json(ours), None) if ours.is_file() else []
    if changes:
        raise ValueError(
            f"--resume_from_hub: the run in {folder} is not the one in {repo_id} (--allow_changed_args goes on all the "
            "same):\n  " + "\n  ".join(changes)
        )


def _list_files(repo_id: str, revision: str | None, may_be_absent: bool) -> tuple[str | None, list[str]]:
    """Return commit and files of a repository; no files if there need be none, and there is no such repository."""
    with asking_the_hub(f"for the files of {repo_id}"):
        try:
            info = HfApi().model_info(repo_id, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            if may_be_absent:
                return None, []
            raise ValueError(
                f"--resume_from_hub: the Hub has no model {repo_id} that may be read (a private one: `hf auth login`)"
            ) from error
    return info.sha, [file.rfilename for file in info.siblings or ()]


def _download(repo_id: str, commit: str | None, patterns: list[str], folder: Path) -> None:
    with asking_the_hub(f"for {patterns[0]} of {repo_id}"):
        HfApi().snapshot_download(repo_id, revision=commit, allow_patterns=patterns, local_dir=folder)


def _read_state(folder: Path) -> TrainerState:
    """Read how far a run had come; the steps become names of folders."""
    state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    if type(state.global_step) is not int or type(state.best_global_step) not in (int, type(None)):
        raise ValueError(f"--resume_from_hub: {folder.name}/{TRAINER_STATE_NAME} must name steps by whole numbers")
    return state


def _put_in_place(fetched: Path, newest: str, folder: Path) -> None:
    """Make checkpoints of what was fetched, the newest last, since a run goes on from that."""
    state = _read_state(fetched / newest)
    target, best = folder / f"{PREFIX}{state.global_step}", folder / f"{PREFIX}{state.best_global_step}"
    for name in (BEST, newest):
        damage = find_damage(fetched / name) if (fetched / name).is_dir() else None
        if damage is not None:
            raise ValueError(f"--resume_from_hub: {name} is not as it was pushed: {damage}")
    if (fetched / BEST).is_dir() and find_damage(best) is not None:
        shutil.rmtree(best, ignore_errors=True)
        (fetched / BEST).rename(best)
    if state.best_model_checkpoint is not None:
        state.best_model_checkpoint = str(best)
    state.save_to_json(str(fetched / newest / TRAINER_STATE_NAME))
    record = fetched / newest / RESOLVED_CONFIG
    if (folder / RESOLVED_CONFIG).exists():
        record.unlink()
    else:
        record.rename(folder / RESOLVED_CONFIG)
    restore_pickles(fetched / newest)
    shutil.rmtree(target, ignore_errors=True)  # newer than all that are whole, so it is not
    (fetched / newest).rename(target)
