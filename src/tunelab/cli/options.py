"""Options that several verbs have, each said once, and what --json prints.

May not be imported by anything but the command line.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = [
    "FOLDER",
    "json_option",
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


def print_json(value: object) -> None:
    """Print a verb's result as JSON, for --json."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
