"""`avb export`: write a checkpoint to an ONNX file that is proven to say the same."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from avb_hf.inference.export import ExportReport
    from avb_hf.inference.sample_clips import ClipSample

USAGE = "avb export CHECKPOINT --output FILE.onnx [--flag value ...]"
EXPLANATION = """
Inputs of the graph are input_values and attention_mask (batch, samples), as the feature extractor makes them, of any
size; its output is logits. FILE is written only if its scores, for classes the probabilities, agree with PyTorch's on
the clips in ragged batches: in float32 to 1e-4 (of the width of a label range), in int8 by a CCC of 0.98 for each
label. Its metadata holds label names, sampling rate, preprocessing, what stayed in float32, and versions. `avb predict
--onnx FILE INPUT ... --output SCORES` uses it.
"""
FP32_CLIPS = 64


@dataclass
class ExportArguments:
    """What is exported, and on which clips it is compared."""

    _argument_group_name: ClassVar[str] = "export"

    output: str = HfArg(help="the .onnx file")
    int8: bool = HfArg(
        default=False, help="multiply in int8: up to four times smaller, faster; what loses too much stays in float32"
    )
    weights_only: bool = HfArg(default=False, help="with --int8: only store weights in int8, and compute in float32")
    clips: list[str] | None = HfArg(
        default=None, help="files, folders or tables of clips to compare on (default: the synthetic demo corpus)"
    )
    max_clips: int | None = HfArg(
        default=None, help="largest number of clips, spread over their lengths (default: 64, or 200 for int8)"
    )
    seed: int = HfArg(default=0, help="seed of the sample")
    model_revision: str | None = HfArg(default=None, help="branch, tag or commit of a Hub id (default: main)")
    overwrite: bool = HfArg(default=False, help="replace a file of another checkpoint or precision")

    def __post_init__(self) -> None:
        if not self.output.endswith(".onnx"):
            raise ValueError(f"--output must be a file .onnx, got {self.output}")
        if self.weights_only and not self.int8:
            raise ValueError("--weights_only goes with --int8")
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"--max_clips must be 1 or more, got {self.max_clips}")
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or more, got {self.seed}")

    @property
    def precision(self) -> str:
        """How the file holds weights and computes: key of `PRECISIONS`."""
        return ("int8_weights" if self.weights_only else "int8") if self.int8 else "fp32"


def main(argv: list[str]) -> int:
    """Export a checkpoint and say how well it agrees.

    Args:
        argv: The checkpoint and flags.

    Returns:
        0.

    Raises:
        ImportError: If a package of the extra `onnx` is not installed.
        ValueError: If flags, checkpoint or clips cannot be used, or the file does not agree with the checkpoint.
    """
    if "-h" in argv or "--help" in argv:
        print_help([ExportArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser([ExportArguments], usage=USAGE)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    args, words = parser.parse(argv)

    import avb_hf.baselines.emo18  # noqa: F401 - so that the refusal names what it is
    from avb_hf.inference.export import export_onnx
    from avb_hf.inference.load_model import load_fine_tuned
    from avb_hf.inference.onnx_file import require_onnx

    require_onnx("onnx", "onnxruntime")
    model, extractor = load_fine_tuned(words.checkpoint, args.model_revision)
    sample = read_clips(args, model.config)
    waveforms = list(sample.waveforms.values())
    report = export_onnx(model, extractor, waveforms, args.output, args.precision, args.overwrite)
    sys.stdout.writelines(f"{line}\n" for line in describe(report, sample, is_synthetic=args.clips is None))
    return 0


def read_clips(args: ExportArguments, config: PreTrainedConfig) -> ClipSample:
    """Read the clips on which file and checkpoint are compared.

    Raises:
        ValueError: If a clip cannot be used.
    """
    from avb_hf.inference.clip_list import list_clips
    from avb_hf.inference.export import LEAST_INT8_CLIPS
    from avb_hf.inference.sample_clips import read_sample

    paths = _list_demo() if args.clips is None else list_clips(args.clips).paths
    max_clips = args.max_clips or (LEAST_INT8_CLIPS if args.int8 else FP32_CLIPS)
    return read_sample([Path(path) for path in paths], config, max_clips, args.seed)


def _list_demo() -> list[str]:
    from avb_hf.data.arguments import DataArguments
    from avb_hf.data.sources import demo

    args = DataArguments(source="demo")
    return [clip.path for clip in demo.list_clips(demo.infer_task(args), args, []).clips]


def describe(report: ExportReport, sample: ClipSample, is_synthetic: bool) -> list[str]:
    """Set out in lines what was written and how well it agrees."""
    from avb_hf.data.audio import SAMPLING_RATE

    seconds = [len(clip) / SAMPLING_RATE for clip in sample.waveforms.values()]
    agreement = report.agreement
    lines = [
        f"compared on {agreement.clips} clips of {min(seconds):.2f} to {max(seconds):.2f} s in ragged batches"
        + (", synthetic ones: --clips takes your own" if is_synthetic else ""),
    ]
    if report.precision == "fp32":
        lines.append(f"largest difference to PyTorch: {agreement.difference:.1e} {agreement.unit}")
    else:
        width = max(map(len, agreement.ccc))
        lines += ["CCC with PyTorch:", *(f"  {label:<{width}} {ccc:.5f}" for label, ccc in agreement.ccc.items())]
        lines += ["in float32:", *(f"  {name}" for name in report.float32_layers)]
    return [*lines, f"{report.output}: {report.precision}, {report.size / 1e6:.1f} MB"]
