"""`python -m tunelab`: the command line."""

from __future__ import annotations

from tunelab.cli import main

main()
