"""Publishing a prepared corpus: read as training reads it, written as Parquet, pushed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avb_hf.data.hub_account import HubRepo
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.dataset_card import make_card
from avb_hf.data.prepare.labelled_clips import read_labelled_clips
from avb_hf.data.prepare.parquet_dataset import check_parquet_folder, write_dataset
from avb_hf.data.prepare.path_tables import followed
from avb_hf.data.prepare.plan import check_folders
from avb_hf.data.prepare.publish_arguments import PublishArguments
from avb_hf.data.prepare.reading import check_reading, find_tasks, reading_arguments
from avb_hf.data.prepare.record import read_record
from avb_hf.data.problems import raise_together

# Settings and versions of a preparation that say nothing of the user's disk.
_TOLD_SETTINGS = ("channels", "peak_db", "keep_level", "subtype")


def check_published(raw: str | Path, out: str | Path, args: PrepareArguments, publish: PublishArguments) -> None:
    """Check before the work that its result can be read, and the folder for the Parquet files written to.

    Args:
        raw: The folder with the recordings.
        out: The folder for the prepared clips.
        args: How they will be prepared.
        publish: What their labels are, and where to write.

    Raises:
        ValueError: If not.
    """
    raw, out = followed(raw), followed(out)
    check_folders(raw, out)
    check_parquet_folder(publish.find_folder(out), raw, out)
    check_reading(raw, args, publish)


def write_published(
    raw: str | Path, out: str | Path, args: PrepareArguments, publish: PublishArguments, repo: HubRepo | None
) -> Path:
    """Write what is published of a prepared corpus, and return its folder.

    Args:
        raw: The folder with the recordings.
        out: The folder that `avb_hf.data.prepare.run.prepare` made of it.
        args: How that was done.
        publish: What its labels are, and where to write.
        repo: Where it will be pushed to, for the card; None where it stays.

    Raises:
        ValueError: If recordings could not be used and may not stay out, the corpus cannot be used, as training would
            say, or its record is damaged or missing.
    """
    raw, out = followed(raw), followed(out)
    folder = publish.find_folder(out)
    reading = reading_arguments(raw, out, args, publish)
    record = read_record(out)
    if record is None:
        raise ValueError(f"{out} has no record of a preparation, so nobody knows what its audio is")
    _check_recordings(record["files"], publish)
    made = {name: record["settings"][name] for name in _TOLD_SETTINGS} | record["versions"]
    clips = read_labelled_clips(find_tasks(reading), reading, made)
    card = make_card(clips, folder.name if repo is None else repo.repo_id, publish.license)
    write_dataset(clips, card, out, folder)
    return folder


def _check_recordings(files: Mapping[str, Any], publish: PublishArguments) -> None:
    """Refuse to leave recordings out unasked: where no table names the clips, nobody would miss them."""
    clips = [entry for entry in files.values() if entry["kind"] == "clip"]
    results = {entry["source"]: entry["result"] or {"error": "is not prepared yet"} for entry in clips}
    bad = [f"{source}: {result['error']}" for source, result in results.items() if "error" in result]
    if publish.on_bad_audio == "error":
        heading = "recordings cannot be used, so nothing is published (--on_bad_audio skip publishes the others)"
        raise_together(bad, heading)
    elif len(bad) > publish.max_bad_audio * len(clips):
        limit = f"more than --max_bad_audio {publish.max_bad_audio:g} allows to leave out"
        raise_together(bad, f"{len(bad) / len(clips):.2%} of the recordings cannot be used, {limit}")
