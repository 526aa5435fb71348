"""What is said while a study runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "OnEvent",
]


OnEvent = Callable[[Mapping[str, Any]], None]
