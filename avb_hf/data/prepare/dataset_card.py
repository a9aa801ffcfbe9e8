"""The card of a published corpus: README.md of its dataset."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import DatasetCardData

from avb_hf import __version__
from avb_hf.card_marker import CARD_MARKER
from avb_hf.data.parquet_parts import ID_COLUMN, SPEAKER_COLUMN
from avb_hf.data.prepare.labelled_clips import LabelledClips
from avb_hf.tasks import TaskSpec

_USE = "--model_name_or_path facebook/wav2vec2-base --output_dir runs/mine"
NO_LICENCE = "No licence was named: ask who published this before you use it, and do not pass it on."


def make_card(clips: LabelledClips, name: str, licence: str | None) -> str:
    """Return the text of a card, with the fields by which the Hub finds files, kind and licence.

    Args:
        clips: The corpus.
        name: Its id on the Hub, or its folder.
        licence: In the Hub's words; None if none was named.
    """
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in clips.splits]
    fields = DatasetCardData(
        license=licence,
        task_categories=["audio-classification"],
        tags=["vocal-bursts", "emotion", "avb_hf"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    tasks = clips.facts.tasks
    return f"""---
{fields.to_yaml()}
---
{CARD_MARKER}

# {Path(name).name}

Vocal bursts with labels: {_sum_up(clips)}, {_tell_preparation(clips)}. Prepared and published by avb_hf {__version__}.

{_tabulate_splits(clips)}

## Columns

- `audio`: the bytes of a WAV file, and its path in the corpus
- `{ID_COLUMN}`: name of the clip{_tell_speakers(clips)}
{"".join(_tell_task(task) for task in tasks.values())}
{_tell_test(clips)}

## Use

```bash
avb train --source hub --dataset_name {name} --task {next(iter(tasks))} {_USE}
```

## Licence

{NO_LICENCE if licence is None else f"`{licence}`, as named by who published it."}
"""


def _sum_up(clips: LabelledClips) -> str:
    total = sum(held["clips"] for held in clips.audio.values())
    return f"{total:,} clips, {sum(held['hours'] for held in clips.audio.values()):.2f} h"


def _tell_preparation(clips: LabelledClips) -> str:
    made = clips.facts.preparation
    level = "as loud as recorded" if made["keep_level"] else f"each with its peak at {made['peak_db']} dBFS"
    return f"16 kHz, mono, {level}"


def _tabulate_splits(clips: LabelledClips) -> str:
    rows = [f"| {name} | {held['clips']:,} | {held['hours']:.2f} |" for name, held in clips.audio.items()]
    return "\n".join(["| split | clips | hours |", "|---|---|---|", *rows])


def _tell_speakers(clips: LabelledClips) -> str:
    return f"\n- `{SPEAKER_COLUMN}`: who is heard" if SPEAKER_COLUMN in clips.features else ""


def _tell_task(task: TaskSpec) -> str:
    if task.is_classification:
        classes = ", ".join(task.labels)
        return f"- task `{task.name}`: the class in `{task.label_columns[0]}`, one of {classes}\n"
    low_high = "" if task.label_range is None else f" in [{task.label_range[0]:g}, {task.label_range[1]:g}]"
    return f"- task `{task.name}`: numbers{low_high} in {', '.join(f'`{label}`' for label in task.labels)}\n"


def _tell_test(clips: LabelledClips) -> str:
    scored = clips.facts.scored_tests
    labelled = f"The test split has labels of {', '.join(scored)}" if scored else "The test split has no labels"
    return f"{labelled}. An empty cell is a label that was not given."
