"""`avb prepare`: raw recordings to 16 kHz mono clips at one level, and to a dataset of the Hub."""

from __future__ import annotations

import sys

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.publish_arguments import PublishArguments

USAGE = "avb prepare RAW OUT [--flag value ...]"
EXPLANATION = """
RAW/a/b.mp3 becomes OUT/a/b.wav: mono, 16 kHz, its loudest sample at --peak_db. All files other than hidden ones (whose
names start with a dot) are copied, so OUT is a corpus with the ids and labels of RAW. A table that names clips by path
is given as --manifest, so that its paths fit; where the paths were the File_IDs, read the table in OUT with --id_column
File_ID. Other texts that name recordings by a path that changes are copied as they are, and listed.
The same call again goes on where one was cut off. Recordings that cannot be used are listed, and the exit code is 1.

--push_to_hub NAME publishes OUT as a dataset of Parquet files with audio, labels, splits and speakers, private unless
--public; `--source hub --dataset_name NAME` reads it. The flags from --source to --split_seed say what its labels are,
as for training; without --task all tables in OUT/labels count. --parquet_dir alone writes the files and pushes nothing.
Where recordings cannot be used nothing is published, and the exit code is 2, unless --on_bad_audio skip says otherwise.
A README.md that somebody else has written stays, in the folder and on the Hub.
Ask first whether the recordings may be passed on: HUME-VB, the corpus of the A-VB challenge, may not be redistributed.
"""


def main(argv: list[str]) -> int:
    """Prepare a folder of recordings, publish it if that is asked for, and say what came out.

    Args:
        argv: RAW, OUT and flags.

    Returns:
        1 if a recording could not be used, else 0.

    Raises:
        ValueError: If a flag does not exist, folders or tables cannot be used, or the Hub cannot be pushed to.
        OSError: If the Hub refuses or does not answer.
    """
    groups = [PrepareArguments, PublishArguments]
    if "-h" in argv or "--help" in argv:
        print_help(groups, USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser(groups, usage=USAGE)
    parser.add_argument("raw", metavar="RAW")
    parser.add_argument("out", metavar="OUT")
    args, publish, folders = parser.parse(argv)
    if not publish.is_wanted:
        return _prepare(folders.raw, folders.out, args)

    from avb_hf.data.prepare.publish import check_published, write_published
    from avb_hf.data.prepare.push import describe_dataset, find_repo, push_dataset

    check_published(folders.raw, folders.out, args, publish)
    repo = find_repo(publish)
    code = _prepare(folders.raw, folders.out, args)
    folder = write_published(folders.raw, folders.out, args, publish, repo)
    sys.stdout.write(describe_dataset(folder, repo, publish.license) + "\n")
    sys.stdout.flush()
    if repo is not None:
        sys.stdout.write(push_dataset(folder, repo) + "\n")
    return code


def _prepare(raw: str, out: str, args: PrepareArguments) -> int:
    from avb_hf.data.prepare.run import prepare

    report = prepare(raw, out, args)
    sys.stdout.write(report.describe() + "\n")
    return 1 if report.bad else 0
