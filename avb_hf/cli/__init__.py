"""The command line: `avb <command>`, one module a command."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys

from safetensors import SafetensorError

from avb_hf import __version__

# Command: what it does. `avb_hf.cli.<command>`, with _ for -, holds its `main(argv)`, which may return an exit code.
COMMANDS = {
    "train": "fine-tune, score and predict; the same as run_avb.py",
    "doctor": "look for what is wrong with a corpus before anything is trained on it",
    "prepare": "bring raw recordings to 16 kHz mono at one level",
    "cache": "list and clear what is kept on disk because it can be made again",
    "audit": "prove that a checkpoint scores a clip alike alone and in any batch",
    "predict": "score the clips of a corpus into a table",
    "export": "write a checkpoint to an ONNX file that is proven to say the same",
    "baseline": "train a system that the paper compares itself with",
    "reproduce": "train and score all that the paper's tables hold, beside the published numbers",
    "submit-check": "check a contest file before it is sent in",
}


def main(argv: list[str] | None = None) -> int:
    """Run `avb <command> ...` and return the exit code.

    Args:
        argv: Arguments behind the program's name; None takes those of the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write("usage: avb <command> ...\n\n")
        sys.stdout.writelines(f"  {name:<12} {text}\n" for name, text in COMMANDS.items())
        sys.stdout.write("\n`avb <command> --help` tells a command's flags.\n")
        return 0
    if argv[0] == "--version":
        sys.stdout.write(f"avb_hf {__version__}\n")
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        sys.stderr.write(f"avb: the command must be one of {list(COMMANDS)}, got {argv[0]!r}{hint}\n")
        return 2
    return run(argv[0], argv[1:])


def run(command: str, argv: list[str]) -> int:
    """Run one command; a user's mistake ends it with its message and exit code 2.

    With `AVB_HF_DEBUG=1` in the environment there is a traceback as well.

    Args:
        command: Key of `COMMANDS`.
        argv: The command's arguments.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "httpx2", "httpcore2", "filelock", "numba"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return importlib.import_module(f"avb_hf.cli.{command.replace('-', '_')}").main(argv) or 0
    except (ValueError, TypeError, OSError, ImportError, SafetensorError) as error:
        if os.environ.get("AVB_HF_DEBUG"):
            raise
        sys.stderr.write(f"avb {command}: {error}\n")
        return 2
    except RuntimeError as error:  # as which a loader's worker may hand on an error of ours, behind its own traceback
        if os.environ.get("AVB_HF_DEBUG") or "in DataLoader worker process" not in str(error):
            raise
        sys.stderr.write(f"avb {command}: {str(error).strip().splitlines()[-1]}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"avb {command}: interrupted\n")
        return 130
