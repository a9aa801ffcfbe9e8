"""The card of a fine-tuned model: `README.md` with metadata that the Hub reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from avb_hf.card_marker import CARD_MARKER
from avb_hf.evaluation.corpora import CORPORA
from avb_hf.evaluation.metrics import LABEL_SCORES
from avb_hf.evaluation.statistics import Interval, ScoreIntervals
from avb_hf.model.card_vocal_burst import CARD_FILE, TAGS
from avb_hf.tasks import TaskSpec
from avb_hf.whole_files import whole_file

_TEMPLATE = "model_card.md.jinja"
_NAMES = {"ccc": "CCC", "uar": "UAR", "recall": "recall"}


class ScoreRow(NamedTuple):
    """A line of the card's table: a label, its score, the score's interval, and the number of labelled clips."""

    label: str
    score: float | None
    interval: Interval | None
    num_clips: float | None


@dataclass(frozen=True)
class SplitScores:
    """The scores of one split.

    Attributes:
        split: Its name.
        metric: Name of the labels' scores, such as `ccc`.
        headline: Name and value of their mean, with its interval if it is known, and the number of clips.
        rows: The labels in order.
        drawn: What the intervals draw, `speakers` or `clips`; None if there are none.
    """

    split: str
    metric: str
    headline: ScoreRow
    rows: list[ScoreRow]
    drawn: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        name: What the model is called.
        location: Hub id or folder that it is loaded from.
        task: What it predicts.
        record: The run's record: `flags`, `command`, `versions`, `model`, `audio`, `processes`.
        splits: The scores of each split that was scored.
        license: Identifier of its licence; None if none was chosen.
        travels: Whether the code lies beside the model, so that transformers alone can load it.
        progress: How far the training has come, if this is a checkpoint of it; such a card is a short one.
    """

    name: str
    location: str
    task: TaskSpec
    record: Mapping[str, Any]
    splits: list[SplitScores]
    license: str | None = None
    travels: bool = True
    progress: str | None = None


def gather_scores(
    results: Mapping[str, float],
    task: TaskSpec,
    split: str,
    prefix: str,
    intervals: ScoreIntervals | None = None,
    drawn: str | None = None,
) -> SplitScores:
    """Put the scores of a split together.

    Args:
        results: Scores by name, as a run writes them (`test_ccc`, `test_ccc_<label>`, `test_n_<label>`, ...).
        task: Names the labels and the headline.
        split: What the card calls the split.
        prefix: What precedes the names, without the underscore.
        intervals: How sure the scores are, if that was computed.
        drawn: What the intervals draw.
    """
    each = LABEL_SCORES[task.metric]
    bounds = intervals.labels if intervals is not None else {}
    rows = [
        ScoreRow(label, results.get(f"{prefix}_{each}_{label}"), bounds.get(label), results.get(f"{prefix}_n_{label}"))
        for label in task.labels
    ]
    headline = ScoreRow(
        task.metric,
        results[f"{prefix}_{task.metric}"],
        None if intervals is None else intervals.headline,
        results.get(f"{prefix}_num_samples"),
    )
    return SplitScores(split, each, headline, rows, drawn)


def make_model_card(facts: CardFacts) -> ModelCard:
    """Fill the template of a card."""
    record = facts.record
    return ModelCard.from_template(
        _metadata(facts),
        template_str=files("avb_hf.evaluation").joinpath(_TEMPLATE).read_text(encoding="utf-8"),
        facts=facts,
        task=facts.task,
        flags=record["flags"],
        corpus=CORPORA[record["flags"]["source"]],
        dataset=_hub_dataset(record["flags"]),
        audio=record["audio"],
        recipe=_recipe(record),
        versions=record["versions"],
        command=_command(record),
        names=_NAMES,
        marker=CARD_MARKER,
    )


def write_model_card(facts: CardFacts, folder: str | Path) -> None:
    """Write a card into a model's folder, whatever lies there."""
    with whole_file(Path(folder) / CARD_FILE) as draft:
        draft.write_text(str(make_model_card(facts)), encoding="utf-8")


def _metadata(facts: CardFacts) -> ModelCardData:
    """Fill what the Hub reads; a field without a value is left out."""
    flags = facts.record["flags"]
    corpus, dataset = CORPORA[flags["source"]], _hub_dataset(flags)
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="vocal-burst emotion",
            dataset_type=dataset or corpus.identifier or flags["source"],
            dataset_name=dataset or corpus.title,
            dataset_split=scores.split,
            dataset_revision=flags.get("dataset_revision") if dataset else None,
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for scores in facts.splits
        for metric, name, value in _metrics(scores)
    ]
    return ModelCardData(
        base_model=facts.record["model"].get("base_model"),
        datasets=[name] if (name := dataset or corpus.identifier) else None,
        eval_results=results or None,
        library_name="transformers" if facts.travels else None,
        license=facts.license,
        metrics=[facts.task.metric],
        model_name=facts.name if results else None,
        pipeline_tag="audio-classification",
        tags=list(TAGS),
    )


def _hub_dataset(flags: Mapping[str, Any]) -> str | None:
    """Return the Hub id of the dataset; None if there is none, or it is a folder."""
    name = flags.get("dataset_name")
    return None if name is None or Path(name).exists() else name


def _metrics(scores: SplitScores) -> list[tuple[str, str, float]]:
    """Return type, name and value of each score that there is, the mean first."""
    mean, each = scores.headline, _NAMES[scores.metric]
    rows = [(scores.metric, f"{each} of {row.label}", row.score) for row in scores.rows]
    named = [(mean.label, f"{_NAMES[mean.label]}, mean", mean.score), *rows]
    return [(metric, name, float(value)) for metric, name, value in named if value is not None]


def _processes(record: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many processes trained on each machine, and on how many machines: on one, unless more is known."""
    everywhere = record["processes"]["world_size"]
    here = record.get("machine", {}).get("processes") or everywhere
    return (here, everywhere // here) if everywhere % here == 0 else (everywhere, 1)


def _command(record: Mapping[str, Any]) -> str:
    """Return the command that a run was started by, as it is typed; torchrun stands for any launcher of processes."""
    program, arguments = Path(record["command"][0]).name, shlex.join(record["command"][1:])
    target = "-m avb_hf" if program in ("__main__.py", "avb") else program
    processes, machines = _processes(record)
    if machines > 1:
        told = f"# on each of {machines} machines, with --master_addr of the first and its own --node_rank\n"
        return f"{told}torchrun --nnodes {machines} --nproc_per_node {processes} {target} {arguments}"
    if processes > 1:
        return f"torchrun --nproc_per_node {processes} {target} {arguments}"
    return f"{f'python {target}' if program.endswith('.py') else program} {arguments}"


def _recipe(record: Mapping[str, Any]) -> dict[str, Any]:
    """Name what made the model, in the order in which a reader asks."""
    flags, model = record["flags"], record["model"]
    encoder = model.get("encoder_config") or {}
    base, commit = model.get("base_model"), model.get("base_model_revision")
    parts = record["processes"]["world_size"] * flags["gradient_accumulation_steps"]
    steps = flags["max_steps"]
    rows = {
        "base model": f"{base} at commit `{commit}`" if base else None,
        "backbone": encoder.get("model_type"),
        "output read": f"block {model['feature_layer']}" if "feature_layer" in model else None,
        "head": f"{model['rnn']}, {model['pooling']} pooling of {model['pool_over']}" if encoder else None,
        "loss": model.get("loss"),
        "frozen": _frozen(flags),
        "length": f"{steps} steps" if steps > 0 else f"{flags['num_train_epochs']:g} epochs",
        "clips a step": flags["per_device_train_batch_size"] * parts,
        "learning rate": flags["learning_rate"],
        "learning rate of the backbone": flags.get("backbone_learning_rate") if encoder else None,
        "optimizer": f"{flags['optim']}, weight decay {flags['weight_decay']:g}",
        "schedule": f"{flags['lr_scheduler_type']}, warm-up {flags['warmup_steps']:g}",
        "adapters": f"LoRA of rank {flags['lora_r']}, merged" if flags.get("lora") else None,
        "precision": "bfloat16" if flags.get("bf16") else "float32",
        "seed": flags["seed"],
    }
    return {name: value for name, value in rows.items() if value is not None}


def _frozen(flags: Mapping[str, Any]) -> str:
    blocks = flags.get("freeze_blocks")
    return flags["freeze"] + (f", and {blocks} transformer blocks" if blocks else "")
