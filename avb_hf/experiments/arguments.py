"""The flags of `avb reproduce`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers.hf_argparser import HfArg

from avb_hf.tasks import check_choice

TABLES = ("I", "II", "III", "IV", "V")
SEEDS, TINY_SEEDS = (1, 2, 3), (1,)


@dataclass
class ReproduceArguments:
    """What is reproduced, how often, and how far this call goes."""

    _argument_group_name: ClassVar[str] = "reproduce"

    tables: list[str] | None = HfArg(default=None, help="tables of the paper: I II III IV V")
    study: Literal["padding"] | None = HfArg(default=None, help="a study of ours instead")
    output_dir: str = HfArg(default=".", help="folder for runs, tables and pictures")
    seeds: list[int] | None = HfArg(default=None, help="each run is done with each (default: 1 2 3; with --tiny 1)")
    recipe: str | None = HfArg(
        default=None, help="how the proposed model is trained: paper, released or recommended (default: paper)"
    )
    model_name_or_path: str | None = HfArg(
        default=None, help="Hub id or folder of the backbone of a study, or of the tables on EmoGator"
    )
    train_flags: str = HfArg(
        default="", help="more flags of `avb train` for the proposed model, in one word: '--precision bf16'"
    )
    team_name: str = HfArg(default="team", help="team in the name of a contest file: A-VB-High_<team>_<n>.csv")
    tiny: bool = HfArg(default=False, help="tiny backbones, few epochs, cached states, one process: to see it all work")
    print_commands: bool = HfArg(default=False, help="print what is still to be run, a line each, and run nothing")
    estimate: bool = HfArg(default=False, help="tell hours and disk of what is still to be run, and run nothing")
    dry_run: bool = HfArg(default=False, help="tell how many runs there are and are finished, and run nothing")
    collect: bool = HfArg(default=False, help="write the tables of what is finished, and run nothing")

    def __post_init__(self) -> None:
        if (self.tables is None) == (self.study is None):
            raise ValueError(f"give one of --tables ({' '.join(TABLES)}) and --study")
        for table in self.tables or ():
            check_choice("--tables", table, TABLES)
        if self.seeds is not None and (len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            raise ValueError(f"--seeds must be distinct numbers of 0 or more, got {self.seeds}")
        if self.study is not None and (self.recipe is not None or self.tiny):
            raise ValueError("--recipe and --tiny belong to --tables; a study's runs are changed by --train_flags")
