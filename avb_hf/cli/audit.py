"""`avb audit`: prove that a clip's scores do not depend on padding, batch mates, batch size, order or world size."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from avb_hf.inference.audit import AuditReport
    from avb_hf.inference.sample_clips import ClipSample

USAGE = "avb audit checkpoint_or_backbone [file_or_folder_of_clips ...] [--flag value ...]"
SUBJECTS = {"scores": "scores", "states": "raw states of block {config.feature_layer}"}


@dataclass
class AuditArguments:
    """What is audited, on which clips."""

    _argument_group_name: ClassVar[str] = "audit"

    max_clips: int = HfArg(default=64, help="largest number of clips, spread over their lengths")
    seed: int = HfArg(default=0, help="seed of the sample and of the batches")
    batch_size: int = HfArg(default=8, help="clips that are run together")
    attn_implementation: Literal["eager", "sdpa"] | None = HfArg(
        default=None, help="attention of the backbone (default: sdpa where transformers has it)"
    )
    model_revision: str | None = HfArg(default=None, help="branch, tag or commit of a Hub id (default: main)")
    feature_layer: int | None = HfArg(
        default=None, help="block of a bare backbone whose raw output is audited (default: 12, or the last)"
    )
    masked_group_norm: bool | None = HfArg(
        default=None, help="group-norm statistics of a bare backbone over valid frames only (default: true)"
    )

    def __post_init__(self) -> None:
        for name, least in (("max_clips", 2), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be {least} or more, got {getattr(self, name)}")


def main(argv: list[str]) -> int:
    """Audit a checkpoint or backbone and print what was found.

    Args:
        argv: The model, files or folders of clips, and flags.

    Returns:
        0 if every perturbation is within the tolerance, else 1.

    Raises:
        ValueError: If flags, model or clips cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([AuditArguments], USAGE)
        return 0
    parser = FlagParser([AuditArguments], usage=USAGE)
    parser.add_argument("checkpoint_or_backbone")
    parser.add_argument("clips", nargs="*", default=[])
    args, words = parser.parse(argv)

    import avb_hf.baselines.emo18  # noqa: F401 - so that its checkpoints are known
    from avb_hf.inference.audit import audit
    from avb_hf.inference.load_model import load_audited
    from avb_hf.inference.sample_clips import find_audio, read_sample, synthesise_sample

    name, files = words.checkpoint_or_backbone, find_audio(words.clips)
    model, extractor, quantity = load_audited(
        name, args.attn_implementation, args.feature_layer, args.masked_group_norm, args.model_revision
    )
    sample = (
        read_sample(files, model.config, args.max_clips, args.seed)
        if files
        else synthesise_sample(model.config, args.max_clips, args.seed)
    )
    report = audit(model, extractor, sample.waveforms, quantity, args.batch_size, args.seed)
    sys.stdout.writelines(f"{line}\n" for line in [*describe(name, model, sample, report), *tabulate(report)])
    return 0 if report.passed else 1


def describe(name: str, model: PreTrainedModel, sample: ClipSample, report: AuditReport) -> list[str]:
    """Say in lines what was audited on what."""
    lengths = [len(clip) / 16_000 for clip in sample.waveforms.values()]
    clips = f"{len(lengths)} clips of {min(lengths):.2f} to {max(lengths):.2f} s"
    if sample.num_cropped:
        clips += f", {sample.num_cropped} of them cut to their middle {sample.max_seconds:g} s"
    subject = SUBJECTS[report.quantity].format(config=model.config)
    attention = f", {model.config._attn_implementation} attention" if hasattr(model.config, "encoder_config") else ""
    return [f"{name}: {subject}, float32{attention}; largest value {report.largest_value:.4g}", clips]


def tabulate(report: AuditReport) -> list[str]:
    """Set out a report in lines: a table, the worst clip, and the verdict last."""
    unit = "of the largest value" if report.is_relative else "absolute"
    lines = [
        "",
        f"{'perturbation':<24}{'largest difference':>20}{'of largest value':>20}  verdict",
        *(
            f"{effect.perturbation:<24}{effect.difference:>20.1e}{report.relative(effect):>20.1e}"
            f"  {'pass' if report.holds(effect) else 'FAIL'}"
            for effect in report.effects
        ),
        f"tolerance: {report.tolerance:g} {unit}",
        f"worst clip: {report.worst.worst_clip} ({report.worst.perturbation})",
    ]
    if report.passed:
        return [*lines, "pass"]
    causes = "; ".join(report.probable_causes)
    return [*lines, f"FAIL, probably since {causes}" if causes else "FAIL"]
