"""`python -m tunelab.cli`."""

from __future__ import annotations

from tunelab.cli.command_line import main

main()
