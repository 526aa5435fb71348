"""As vLLM's server classifies, and loads and unloads adapters (its source, version 0.33)."""

from __future__ import annotations

import asyncio
import time
import uuid
from http import HTTPStatus
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tunelab.serving.engine import ScoredTexts
from tunelab.serving.refusal import Refusal
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
    "VLLM",
    "classify_as_vllm",
    "refuse_as_vllm",
]

_VLLM_ERRORS = {
    400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError",
    404: "NotFoundError", 429: "RateLimitError",
}  # fmt: skip


class ClassifyBody(Body):
    """`input`: a text or texts, or the token ids of one or of several."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)


class LoadBody(Body):
    """`lora_path`: a folder in the server's --adapter-dir."""

    lora_name: str = Field(min_length=1, max_length=200, pattern=r"^[\w.@+-]+$")
    lora_path: str = Field(min_length=1, max_length=4000)
    load_inplace: bool = False


class UnloadBody(Body):
    """What is taken out."""

    lora_name: str


def refuse_as_vllm(refusal: Refusal) -> Response:
    """{"error": {"message", "type", "param", "code"}}."""
    status, headers = status_of(refusal)
    kind = _VLLM_ERRORS.get(status) or HTTPStatus(status).phrase.replace(" ", "")
    said = {"message": str(refusal), "type": kind, "param": None, "code": status}
    return json_response({"error": said}, status, headers)


async def _answered(service: Service, body: ClassifyBody) -> ScoredTexts:
    given = body.input
    if isinstance(given, str):
        given = [given]
    if not given or isinstance(given[0], str):
        return await service.classify(body.model, given)  # type: ignore[arg-type]
    rows: Any = [given] if isinstance(given[0], int) else given
    reader = service.engine.table[body.model].reader
    return await service.classify_items(body.model, [reader.from_ids(row) for row in rows])


async def classify_as_vllm(service: Service, request: Request, raw: bytes) -> Response:
    """A row for each text: its label (null where it is not answered), and the probabilities in the
    labels' order.
    """
    body = parsed(ClassifyBody, raw)
    calibrated, error = wants_calibrated(request), allowed_error(request)
    limit = service.engine.table[body.model].reader.max_length
    wanted = body.truncate_prompt_tokens
    if wanted not in {None, -1} and limit is not None and wanted != limit:
        raise Refusal(
            "invalid", f"truncate_prompt_tokens: expected -1 or {limit}, as the model was trained."
        )
    answer = await _answered(service, body)
    raw_scores = body.use_activation is False
    rows = answer.scores if raw_scores else answer.probabilities(calibrated)
    tokens = int(answer.tokens.sum())
    return json_response(
        {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": answer.model.name,
            "data": [
                {
                    "index": i,
                    "label": answer.model.label_names[int(np.argmax(row))] if sure else None,
                    "probs": [float(p) for p in row],
                    "num_classes": len(row),
                }
                for i, (row, sure) in enumerate(zip(rows, answer.answered(error), strict=True))
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )


async def _classify(service: Service, request: Request) -> Response:
    return await classify_as_vllm(service, request, await read_body(service, request))


def _card(name: str, root: str, parent: str | None, created: float) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": int(created),
        "owned_by": "tunelab",
        "root": root,
        "parent": parent,
        "permission": [],
    }


def _cards(service: Service) -> list[dict[str, object]]:
    models = service.engine.table.models.values()
    taken = {m.name for m in models}
    of_bases = dict.fromkeys(m.base for m in models if m.base and m.base not in taken)
    return [_card(base, base, None, service.started) for base in of_bases] + [
        _card(m.name, m.folder.name, m.base, service.started) for m in models
    ]


async def _models(service: Service, _: Request) -> Response:
    return json_response({"object": "list", "data": _cards(service)})


async def _model_card(service: Service, request: Request) -> Response:
    name = request.path_params["name"]
    card = next((c for c in _cards(service) if c["id"] == name), None)
    return json_response(card if card is not None else service.engine.table[name].name)


async def _load_adapter(service: Service, request: Request) -> Response:
    body = parsed(LoadBody, await read_body(service, request))

    def load() -> None:
        service.engine.load(
            body.lora_name,
            lambda: service.loader.open_below(service.adapter_dir, body.lora_name, body.lora_path),
            replace=body.load_inplace,
        )

    try:
        await asyncio.to_thread(load)
    except Refusal as e:
        if e.fault != "exists":
            raise
        raise Refusal(
            "exists",
            f"The lora adapter '{body.lora_name}' has already been loaded. If you want to load the "
            "adapter in place, set 'load_inplace' to True.",
        ) from e
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


async def _unload_adapter(service: Service, request: Request) -> Response:
    body = parsed(UnloadBody, await read_body(service, request))
    if body.lora_name not in service.engine.table.models:
        raise Refusal("unknown", f"The lora adapter '{body.lora_name}' cannot be found.")
    await asyncio.to_thread(service.engine.unload, body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


VLLM = (
    Door("POST", "/classify", _classify, refuse_as_vllm, "Classify", ClassifyBody, counts=True),
    Door("GET", "/v1/models", _models, refuse_as_vllm, "Bases and models"),
    Door("GET", "/v1/models/{name}", _model_card, refuse_as_vllm, "A model"),
    Door(
        "POST",
        "/v1/load_lora_adapter",
        _load_adapter,
        refuse_as_vllm,
        "Load a model",
        LoadBody,
        changes=True,
    ),
    Door(
        "POST",
        "/v1/unload_lora_adapter",
        _unload_adapter,
        refuse_as_vllm,
        "Unload it",
        UnloadBody,
        changes=True,
    ),
)
