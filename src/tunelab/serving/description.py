"""What the server offers, as OpenAPI 3.1: made from its doors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunelab.core.version import __version__
from tunelab.serving.service import Door

__all__ = [
    "openapi_of",
]

_REFUSALS = ("400", "401", "403", "404", "413", "422", "424", "429", "503")


def openapi_of(doors: Sequence[Door]) -> dict[str, object]:
    """The description as JSON."""
    paths: dict[str, dict[str, object]] = {}
    schemas: dict[str, object] = {}
    for door in doors:
        paths.setdefault(door.path, {})[door.method.lower()] = _operation(door, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tunelab serve", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(door: Door, schemas: dict[str, object]) -> dict[str, object]:
    said: dict[str, object] = {
        "summary": door.says,
        "operationId": f"{door.method} {door.path}",
        "parameters": _parameters(door),
        "responses": _responses(door),
        "security": [] if door.open else [{}, {"key": []}],
    }
    if door.body is not None:
        schema = door.body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[door.body.__name__] = schema
        where = {"$ref": f"#/components/schemas/{door.body.__name__}"}
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": where}}}
    return said


def _parameters(door: Door) -> list[dict[str, object]]:
    text = {"type": "string"}
    inside = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", door.path)
    ]
    if not door.counts:
        return inside
    calibrated = {"name": "calibrated", "in": "query", "schema": {"enum": ["0", "1"], **text}}
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return [*inside, calibrated, {"name": "abstain", "in": "query", "schema": share}]


def _responses(door: Door) -> dict[str, object]:
    """What is answered: JSON where something is classified or refused, else what there is."""
    done: dict[str, object] = {"description": "answered"}
    if door.counts:
        done["content"] = {"application/json": {}}
    refused = {code: {"description": "refused"} for code in _REFUSALS}
    return {"200": done, **refused}
