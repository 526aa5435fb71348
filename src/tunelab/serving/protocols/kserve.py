"""KServe's open inference protocol, version 2, as Triton's clients speak it, strings in binary too.

A model has one input, `text` (BYTES, n), and gives `probs` (FP32, n by classes) and `label`
(BYTES, n; empty where a text is not answered). Answers are JSON, whatever form the request had.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from math import prod
from typing import Annotated

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from tunelab.core.version import __version__
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import Served
from tunelab.serving.service import (
    Body,
    Door,
    Service,
    allowed_error,
    json_response,
    parsed,
    read_body,
    status_of,
    wants_calibrated,
)

__all__ = [
    "KSERVE",
]

_HEADER = "inference-header-content-length"
_VERSION = "1"


class InputTensor(Body):
    """Texts: in `data`, or as many bytes after the JSON as `binary_data_size` says."""

    name: str
    # Bounded: the product of numbers of any length, and of any many, would take any time.
    shape: list[Annotated[int, Field(ge=0, le=1_000_000)]] = Field(min_length=1, max_length=8)
    datatype: str
    parameters: dict[str, object] = Field(default_factory=dict)
    data: list[object] | None = None


class OutputTensor(Body):
    """An output that is wanted."""

    name: str
    parameters: dict[str, object] = Field(default_factory=dict)


class InferBody(Body):
    """One input of texts."""

    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputTensor] | None = None
    parameters: dict[str, object] = Field(default_factory=dict)


def _refuse_as_kserve(refusal: Refusal) -> Response:
    status, headers = status_of(refusal)
    return json_response({"error": str(refusal)}, status, headers)


async def _server(_: Service, __: Request) -> Response:
    said = {"name": "tunelab", "version": __version__, "extensions": ["model_repository"]}
    return json_response(said)


async def _is_ready(service: Service, request: Request) -> Response:
    if "name" in request.path_params:
        _asked(service, request)
    if not service.engine.is_up:
        raise Refusal("stopping", "The server is stopping.")
    return Response(status_code=200)


def _asked(service: Service, request: Request) -> Served:
    version = request.path_params.get("version", _VERSION)
    model = service.engine.table[request.path_params["name"]]
    if version != _VERSION:
        raise Refusal("unknown", f"{model.name}: there is version {_VERSION}, found {version!r}.")
    return model


async def _model_metadata(service: Service, request: Request) -> Response:
    model = _asked(service, request)
    return json_response(
        {
            "name": model.name,
            "versions": [_VERSION],
            "platform": "tunelab",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "probs", "datatype": "FP32", "shape": [-1, len(model.label_names)]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
        }
    )


def _split(raw: bytes, said: str | None) -> tuple[bytes, bytes]:
    """The JSON of a request, and the bytes after it."""
    if said is None:
        return raw, b""
    if not said.isascii() or not said.isdigit() or int(said) > len(raw):
        raise Refusal("invalid", f"{_HEADER}: expected a number of bytes, found {said!r}.")
    return raw[: int(said)], raw[int(said) :]


def _texts_of(tensor: InputTensor, binary: bytes) -> list[str]:
    if tensor.datatype != "BYTES":
        raise Refusal("invalid", f"{tensor.name}: expected BYTES, found {tensor.datatype}.")
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if not isinstance(size, int) or size != len(binary):
            raise Refusal(
                "invalid",
                f"{tensor.name}: binary_data_size is {size}, but {len(binary)} bytes follow.",
            )
        texts = _strings_in(binary)
    else:
        texts = _flat(tensor.data or [])
    count = prod(tensor.shape)
    if count != len(texts):
        raise Refusal(
            "invalid", f"{tensor.name}: shape {tensor.shape} holds {count}, found {len(texts)}."
        )
    return texts


def _flat(data: list[object]) -> list[str]:
    texts: list[str] = []
    waiting = list(reversed(data))
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        else:
            raise Refusal("invalid", f"data: expected texts, found {type(value).__name__}.")
    return texts


def _strings_in(raw: bytes) -> list[str]:
    """Each string after its length in four bytes, the lowest first."""
    texts, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise Refusal("invalid", "binary texts: the last length is cut short.")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise Refusal("invalid", "binary texts: the last text is cut short.")
        try:
            texts.append(raw[at : at + size].decode("utf-8"))
        except UnicodeDecodeError as e:
            raise Refusal("invalid", f"text {len(texts)} is not UTF-8 ({e.reason}).") from e
        at += size
    return texts


async def _infer(service: Service, request: Request) -> Response:
    raw, binary = _split(await read_body(service, request), request.headers.get(_HEADER))
    body = parsed(InferBody, raw)
    calibrated, error = wants_calibrated(request), allowed_error(request)
    model = _asked(service, request)
    answer = await service.classify(model.name, _texts_of(body.inputs[0], binary))
    p = answer.probabilities(calibrated)
    labels = [
        answer.model.label_names[k] if answered else ""
        for k, answered in zip(p.argmax(axis=1), answer.answered(error), strict=True)
    ]
    outputs: Mapping[str, Mapping[str, object]] = {
        "probs": {
            "datatype": "FP32",
            "shape": list(p.shape),
            "data": p.astype(np.float32).ravel().tolist(),
        },
        "label": {"datatype": "BYTES", "shape": [len(labels)], "data": labels},
    }
    wanted = [o.name for o in body.outputs] if body.outputs else list(outputs)
    unknown = next((name for name in wanted if name not in outputs), None)
    if unknown is not None:
        raise Refusal("invalid", f"output {unknown!r}: expected one of {', '.join(outputs)}.")
    return json_response(
        {
            "model_name": answer.model.name,
            "model_version": _VERSION,
            **({"id": body.id} if body.id is not None else {}),
            "outputs": [{"name": name, **outputs[name]} for name in wanted],
        }
    )


async def _index(service: Service, _: Request) -> Response:
    return json_response(
        [
            {"name": name, "version": _VERSION, "state": "READY", "reason": ""}
            for name in service.engine.table.models
        ]
    )


async def _load_model(service: Service, request: Request) -> Response:
    """Load the folder of this name in --adapter-dir, anew where it is loaded already."""
    name = request.path_params["name"]
    raw = await read_body(service, request)
    if raw.strip():
        try:
            asked = json.loads(raw)
        except (ValueError, RecursionError) as e:
            raise Refusal("invalid", "The body is not JSON.") from e
        if not isinstance(asked, dict) or asked.get("parameters"):
            raise Refusal("invalid", "parameters: none are read; a model is what its folder says.")
    await asyncio.to_thread(
        service.engine.load,
        name,
        lambda: service.loader.open_below(service.adapter_dir, name, name),
        replace=True,
    )
    return Response(status_code=200)


async def _unload_model(service: Service, request: Request) -> Response:
    await asyncio.to_thread(service.engine.unload, request.path_params["name"])
    return Response(status_code=200)


KSERVE = (
    Door("GET", "/v2", _server, _refuse_as_kserve, "The server"),
    Door("GET", "/v2/health/live", _is_ready, _refuse_as_kserve, "Whether it runs", open=True),
    Door("GET", "/v2/health/ready", _is_ready, _refuse_as_kserve, "Whether it answers", open=True),
    *(
        door
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
        for door in (
            Door("GET", path, _model_metadata, _refuse_as_kserve, "A model's inputs and outputs"),
            Door(
                "GET",
                f"{path}/ready",
                _is_ready,
                _refuse_as_kserve,
                "Whether it answers",
                open=True,
            ),
            Door(
                "POST",
                f"{path}/infer",
                _infer,
                _refuse_as_kserve,
                "Classify",
                InferBody,
                counts=True,
            ),
        )
    ),
    Door("POST", "/v2/repository/index", _index, _refuse_as_kserve, "Models in memory"),
    Door(
        "POST",
        "/v2/repository/models/{name}/load",
        _load_model,
        _refuse_as_kserve,
        "Load a model",
        changes=True,
    ),
    Door(
        "POST",
        "/v2/repository/models/{name}/unload",
        _unload_model,
        _refuse_as_kserve,
        "Unload it",
        changes=True,
    ),
)
