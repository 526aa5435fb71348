"""Values as JSON and YAML have them: at the edges where text is read and written, not within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "Json",
    "JsonObject",
    "SettingValues",
]

# What a text gave: checked by whoever gives it a type (`from_json`, a pydantic model).
Json = Any
JsonObject = Mapping[str, Json]

# Values of settings by name. Which there are, and of what type, says a method's `Settings`.
SettingValues = Mapping[str, Json]
