"""Options that several verbs have, each said once, and what --json prints.

May not be imported by anything but the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from tunelab.cli.streams import echo, printable

__all__ = [
    "FOLDER",
    "json_option",
    "json_text",
    "moved_option",
    "print_json",
    "quiet_option",
    "trust_option",
]


FOLDER = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True)
moved_option = click.option(
    "--model",
    metavar="MODEL",
    help="Where the base lies now, a folder or hub id; its weights must be the same.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print results alone.")
trust_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    default=None,
    help="Run the Python code that the model brings.",
)


def json_text(
    value: object, indent: int | None = None, default: Callable[[object], object] | None = None
) -> str:
    """A value as JSON that may be printed: nothing in it is a terminal's, and nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=default)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c == "\n" or printable(c) else f"\\u{ord(c):04x}" for c in text)


def print_json(value: object) -> None:
    """Print a verb's result as JSON, for --json."""
    echo(json_text(value, indent=2))
