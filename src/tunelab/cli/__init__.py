"""The terminal's door: verbs, flags, exit codes. A leaf: nothing imports this.

Only click is imported here; a verb imports what it needs, so that `tunelab --help` is instant.
May import: everything below.
"""

from __future__ import annotations

from tunelab.cli.command_line import app, main

__all__ = ["app", "main"]
