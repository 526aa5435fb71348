"""As SageMaker calls a container: /ping, and /invocations with TEI's body or vLLM's."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response

from tunelab.serving.protocols.tei import TeiBody, predict_as_tei, refuse_as_tei
from tunelab.serving.protocols.vllm import classify_as_vllm, refuse_as_vllm
from tunelab.serving.refusal import Refusal
from tunelab.serving.service import Door, Service, read_body

__all__ = [
    "SAGEMAKER",
]


async def _ping(service: Service, _: Request) -> Response:
    if not service.engine.is_up:
        raise Refusal("stopping", "unhealthy")
    return Response(status_code=200)


async def _invocations(service: Service, request: Request) -> Response:
    """TEI's body has `inputs`, vLLM's `input`."""
    raw = await read_body(service, request)
    try:
        keys = json.loads(raw)
    except (ValueError, RecursionError):
        keys = {}
    if isinstance(keys, dict) and "input" in keys and "inputs" not in keys:
        try:
            return await classify_as_vllm(service, request, raw)
        except Refusal as e:
            service.figures.refused(e.fault)
            return refuse_as_vllm(e)
    return await predict_as_tei(service, request, raw)


SAGEMAKER = (
    Door("GET", "/ping", _ping, refuse_as_tei, "Whether it answers", open=True),
    Door("POST", "/invocations", _invocations, refuse_as_tei, "Classify", TeiBody, counts=True),
)
