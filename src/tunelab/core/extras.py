"""What an optional part of tunelab needs, as the line that installs it: from package metadata."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection

__all__ = [
    "install_line",
]

# As pip's metadata has it: onnx>=1.23; extra == "export"
_OF_EXTRA = re.compile(
    r"""(?P<package>(?P<name>[\w.-]+)[^;]*);.*\bextra\s*==\s*['"](?P<extra>[^'"]+)['"]"""
)


def install_line(extra: str, only: Collection[str] = ()) -> str:
    """The pip line for the packages of an extra, or for those of them that `only` names.

    tunelab itself is in no index, so that the extra's own name would install nothing.
    """
    try:
        declared = importlib.metadata.requires("tunelab") or ()
    except importlib.metadata.PackageNotFoundError:
        declared = ()
    parts = [m for m in map(_OF_EXTRA.fullmatch, declared) if m and m["extra"] == extra]
    packages = [m["package"].strip() for m in parts if not only or m["name"] in only]
    if not packages:  # installed before it had this extra, or run without being installed
        return f'pip install ".[{extra}]" in the folder of tunelab\'s pyproject.toml'
    return " ".join(["pip install", *(f'"{p}"' for p in packages)])
