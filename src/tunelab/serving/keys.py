"""Keys that open a server: of a file, and of the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunelab.core.errors import ConfigError

__all__ = [
    "API_KEYS",
    "checked_keys",
    "read_keys",
]

API_KEYS = "TUNELAB_API_KEYS"


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Keys of a file, one a line, and of the environment. Raises ConfigError for what is none."""
    given = os.environ.get(API_KEYS)
    said = (given or "").replace(",", "\n")
    if file is not None:
        try:
            said += "\n" + file.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{file}: expected a file of keys, one a line ({e}).") from e
    keys = tuple(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
    if keys or (file is None and given is None):
        return keys
    # Whoever names a place of keys wants a server that asks for one.
    where = API_KEYS if file is None else str(file)
    raise ConfigError(f"{where}: expected keys, found none. Give one, or leave it unset.")


def checked_keys(given: Sequence[str]) -> tuple[str, ...]:
    """Keys as a caller gives them; none: those of the environment. Raises ConfigError for what is
    none: a blank key would open the server to everybody.
    """
    if isinstance(given, str) or not all(isinstance(k, str) and k.strip() for k in given):
        raise ConfigError("api_keys: expected a list of keys that are not blank.")
    return tuple(k.strip() for k in given) or read_keys(None)
