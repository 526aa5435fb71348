"""Options that several verbs have, each said once. Only click is imported here.

May not be imported by anything but the command line.
"""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["FOLDER", "json_option", "quiet_option", "trust_option"]

FOLDER = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print results alone.")
trust_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    default=None,
    help="Run the Python code that the model brings.",
)
