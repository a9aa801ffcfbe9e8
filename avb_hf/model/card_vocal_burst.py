"""The card of a model that is saved by itself: what it is, how to use it, and what it must not be used for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

CARD_FILE = "README.md"
TAGS = ("audio", "vocal-bursts", "emotion-recognition", "avb_hf")
# `CARD_MARKER` of avb_hf, whose file of that name does not travel: a run replaces this card by its own.
_MARKER = "<!-- Written by avb_hf, which replaces this card unless this line is removed. -->"

_TEXT = """---
{metadata}
---
{marker}

# {name}

A `{name}` on {backbone}. It hears what is expressed in *vocal bursts*: laughs, cries, gasps, groans. Of a clip it gives
{scores}: {labels}.

```python
from transformers import pipeline

listener = pipeline("vocal-burst-emotion", model="owner/name", trust_remote_code=True)
scores = listener("clip.wav")
for label, score in scores.items():
    print(f"{{label}}: {{score:.3f}}")
```

This needs transformers 5.17 or later, torch, soundfile and soxr (librosa for `segment=True`, which finds the bursts in
long recordings), and runs the Python files that lie beside the model.

It hears expressions, not feelings: it is no lie detector and no diagnostic, and must not decide about people. What it
was trained on, how well it scores, and under which licence it may be used, nobody has written here yet.
"""


def describe_model(config: Any) -> str:
    """Return the text of a card that says no more than a configuration tells.

    Args:
        config: A `VocalBurstConfig`.
    """
    metadata = ModelCardData(
        base_model=config.base_model,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=list(TAGS),
    )
    count, span = config.num_labels, config.label_range
    if config.problem_type == "regression":
        scores = f"one score for each of {count} labels" + (f", from {span[0]:g} to {span[1]:g}" if span else "")
    else:
        scores = f"the probability of each of {count} classes"
    return _TEXT.format(
        metadata=metadata,
        marker=_MARKER,
        name="Wav2Vec2ForVocalBurst",
        backbone=config.base_model or f"a {config.encoder_config.model_type} backbone",
        scores=scores,
        labels=_name_labels(config),
    )


def write_card(config: Any, folder: Path) -> None:
    """Write that card into a model's folder, if there is none, or one of ours that speaks of other labels."""
    path = folder / CARD_FILE
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        if _MARKER not in text.splitlines() or _name_labels(config) in " ".join(text.split()):
            return
    path.write_text(describe_model(config), encoding="utf-8")


def tag_card(path: Path, tags: list[str]) -> None:
    """Add tags to a card's metadata; make one of them alone where there is none."""
    if not path.is_file():
        path.write_text("---\n{}\n---\n", encoding="utf-8")
    card = ModelCard.load(path)
    card.data.tags = list(dict.fromkeys([*(card.data.tags or ()), *tags]))
    card.save(path)


def _name_labels(config: Any) -> str:
    return ", ".join(config.label_names)
