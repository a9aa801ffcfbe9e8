"""From recipe and command line to checked flags; help that imports no torch."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers.hf_argparser import HfArgumentParser

RECIPE_READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".json": json.loads,
    ".toml": tomllib.loads,
}
# A flag of the command line, and the one of a recipe that it takes the place of.
EITHER_OR = {
    "model_name_or_path": "encoder_config",
    "encoder_config": "model_name_or_path",
    "bf16": "precision",
}


class FlagParser(HfArgumentParser):
    """HfArgumentParser whose errors are short and name the nearest flag, and which takes no abbreviations.

    Args:
        dataclass_types: The argument dataclasses.
        **kwargs: Passed on to argparse.
    """

    def __init__(self, dataclass_types: Any, **kwargs: Any) -> None:
        super().__init__(dataclass_types, allow_abbrev=False, add_help=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError instead of printing a page of usage."""
        raise ValueError(message)

    def parse(self, argv: list[str]) -> tuple[Any, ...]:
        """Parse arguments into the dataclasses.

        Raises:
            ValueError: If a flag does not exist or a value is not allowed.
        """
        # First, since a misspelt flag may be why the dataclasses miss a value.
        _, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [option for action in self._actions for option in action.option_strings]
            flag = unknown[0].partition("=")[0]  # not its value, which may be a secret
            if not flag.startswith("-"):
                raise ValueError(f"{flag!r} is no flag; files and folders come before the flags")
            near = difflib.get_close_matches(flag, flags, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; --help lists the flags"
            raise ValueError(f"there is no flag {flag}{hint}")
        return self.parse_args_into_dataclasses(argv, look_for_args_file=False)


def print_help(dataclass_types: list[Any], usage: str) -> None:
    """Print the flags of argument dataclasses, grouped, with their defaults."""
    parser = FlagParser(dataclass_types, usage=usage, formatter_class=_HelpFormatter)
    parser.print_help(sys.stdout)


def split_recipe(argv: list[str]) -> list[str]:
    """Put a recipe's flags, if the first argument is one, before the rest, so that the command line wins."""
    if not argv or argv[0].startswith("-"):
        return argv
    given = {word.split("=")[0].replace("-", "_") for word in argv[1:] if word.startswith("--")}
    replaced = [old for new, old in EITHER_OR.items() if f"__{new}" in given]
    return recipe_flags(argv[0], left_out=replaced) + argv[1:]


def recipe_flags(name_or_path: str, left_out: Sequence[str] = ()) -> list[str]:
    """Read a recipe as command-line flags, which are then checked like any others.

    Args:
        name_or_path: A YAML, TOML or JSON file, or the name of a packaged recipe.
        left_out: Flags of the recipe that the command line replaces by others.

    Raises:
        ValueError: If there is no such recipe, or it is not a mapping of flags.
    """
    path = Path(name_or_path)
    if path.suffix not in RECIPE_READERS:
        packaged = {Path(entry.name).stem: entry for entry in files("avb_hf").joinpath("recipes").iterdir()}
        if name_or_path not in packaged:
            near = difflib.get_close_matches(name_or_path, packaged, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"recipe must be one of {sorted(packaged)} or a .yaml, .toml or .json file, got {name_or_path!r}{hint}"
            )
        path = Path(str(packaged[name_or_path]))
    if not path.is_file():
        raise ValueError(f"recipe {path} does not exist")
    try:
        content = RECIPE_READERS[path.suffix](path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"recipe {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"recipe {path} must be a mapping of flags, got {type(content).__name__}")
    return [
        word
        for flag, value in content.items()
        if value is not None and flag not in left_out
        for word in _as_words(flag, value)
    ]


def _as_words(flag: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        value = json.dumps(value)
    values = value if isinstance(value, list) else [value]
    return [f"--{flag}", *(str(item).lower() if isinstance(item, bool) else str(item) for item in values)]


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each flag once (not its spelling with hyphens) and no default where there is none."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = [option for option in action.option_strings if "-" not in option[2:]]
        action.option_strings, kept = shown or action.option_strings, action.option_strings
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = kept

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or "" if action.default is None else super()._get_help_string(action) or ""
