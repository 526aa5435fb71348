"""Keys that open a server: of a file, and of the environment."""

from __future__ import annotations

import os
from pathlib import Path

from tunelab.core.errors import ConfigError

__all__ = [
    "API_KEYS",
    "read_keys",
]

API_KEYS = "TUNELAB_API_KEYS"


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Keys of a file, one a line, and of the environment. Raises ConfigError for what is none."""
    said = os.environ.get(API_KEYS, "").replace(",", "\n")
    if file is not None:
        try:
            said += "\n" + file.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{file}: expected a file of keys, one a line ({e}).") from e
    keys = tuple(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
    if file is not None and not keys:
        raise ConfigError(f"{file}: expected keys, one a line, found none.")
    return keys
