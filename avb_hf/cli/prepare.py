"""`avb prepare`: raw recordings to 16 kHz mono clips at one level."""

from __future__ import annotations

import sys

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.data.prepare.arguments import PrepareArguments

USAGE = "avb prepare RAW OUT [--flag value ...]"
EXPLANATION = """
RAW/a/b.mp3 becomes OUT/a/b.wav: mono, 16 kHz, its loudest sample at --peak_db. All files other than hidden ones (whose
names start with a dot) are copied, so OUT is a corpus with the ids and labels of RAW. A table that names clips by path
is given as --manifest, so that its paths fit; where the paths were the File_IDs, read the table in OUT with --id_column
File_ID. Other texts that name recordings by a path that changes are copied as they are, and listed.
The same call again goes on where one was cut off. Recordings that cannot be used are listed, and the exit code is 1.
"""


def main(argv: list[str]) -> int:
    """Prepare a folder of recordings and say what came out.

    Args:
        argv: RAW, OUT and flags.

    Returns:
        1 if a recording could not be used, else 0.

    Raises:
        ValueError: If a flag does not exist, or folders or tables cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([PrepareArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser([PrepareArguments], usage=USAGE)
    parser.add_argument("raw", metavar="RAW")
    parser.add_argument("out", metavar="OUT")
    args, folders = parser.parse(argv)

    from avb_hf.data.prepare.run import prepare

    report = prepare(folders.raw, folders.out, args)
    sys.stdout.write(report.describe() + "\n")
    return 1 if report.bad else 0
