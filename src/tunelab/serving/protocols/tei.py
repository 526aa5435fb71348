"""As Hugging Face's text-embeddings-inference answers for a classifier (its source, July 2026)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from tunelab.core.version import __version__
from tunelab.serving.engine import ScoredTexts
from tunelab.serving.protocols.hub import HubBody, answer_hub
from tunelab.serving.refusal import Fault, Refusal
from tunelab.serving.service import (
    Body,
    Door,
    Service,
    allowed_error,
    json_response,
    parsed,
    ranked,
    read_body,
    status_of,
    wants_calibrated,
)

__all__ = [
    "TEI",
    "TeiBody",
    "predict_as_tei",
    "refuse_as_tei",
]

_TEI_STATUS: Mapping[Fault, int] = {
    "invalid": 422, "no_tokens": 422, "too_long": 422, "too_many": 422, "failed": 424,
}  # fmt: skip
_TEI_ERRORS: Mapping[Fault, str] = {
    "empty": "Empty", "no_tokens": "Tokenizer", "failed": "Backend", "overloaded": "Overloaded",
    "stopping": "Unhealthy",
}  # fmt: skip


class TeiBody(Body):
    """`inputs`: a text; a list of one text; a list of such lists, which is a batch."""

    inputs: str | list[str] | list[list[str]]
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"
    raw_scores: bool = False


class TokenizeBody(Body):
    """`inputs`: a text, or texts."""

    inputs: str | list[str]
    add_special_tokens: bool = True


def refuse_as_tei(refusal: Refusal) -> Response:
    """{"error", "error_type"}; a missing key has no body."""
    status, headers = status_of(refusal, _TEI_STATUS)
    if status == 401:
        return Response(status_code=status, headers=headers)
    kind = _TEI_ERRORS.get(refusal.fault, "Validation")
    return json_response({"error": str(refusal), "error_type": kind}, status, headers)


def _text_of(given: str | list[str]) -> str:
    """The text of an input; a pair of texts is something that no model here reads."""
    if isinstance(given, str):
        return given
    if not given:
        raise Refusal("empty", "`inputs` cannot be empty")
    if len(given) == 1:
        return given[0]
    raise Refusal(
        "invalid",
        "`inputs`: a list of texts is a pair here, and this model reads single texts. "
        'A batch is a list of lists: [["one"], ["two"]]',
    )


async def predict_as_tei(service: Service, request: Request, raw: bytes) -> Response:
    """One input: a flat list of labels, best first; a batch: a list of these. Of a text that is
    not answered it is empty.
    """
    began = time.perf_counter()
    body = parsed(TeiBody, raw)
    inputs = body.inputs
    batch = isinstance(inputs, list) and (not inputs or isinstance(inputs[0], list))
    texts = [_text_of(i) for i in inputs] if batch else [_text_of(inputs)]  # type: ignore[arg-type]
    calibrated, error = wants_calibrated(request), allowed_error(request)
    answer = await service.classify(
        request.query_params.get("model"),
        texts,
        cut=body.truncate is not False,
        left=body.truncation_direction.lower() == "left",
    )
    rows = answer.scores if body.raw_scores else answer.probabilities(calibrated)
    said = [
        ranked(answer.model.label_names, row) if answered else []
        for row, answered in zip(rows, answer.answered(error), strict=True)
    ]
    headers = _timings(answer, sum(map(len, texts)), time.perf_counter() - began)
    return json_response(said if batch else said[0], headers=headers)


def _timings(answer: ScoredTexts, characters: int, seconds: float) -> dict[str, str]:
    read = max(0.0, seconds - answer.queued_seconds - answer.computed_seconds)
    milliseconds = {
        "x-total-time": seconds,
        "x-compute-time": seconds,
        "x-tokenization-time": read,
        "x-queue-time": answer.queued_seconds,
        "x-inference-time": answer.computed_seconds,
    }
    return {
        "x-compute-type": "cpu" if answer.model.where == "cpu" else "gpu",
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(int(answer.tokens.sum())),
        **{name: str(round(1000 * s)) for name, s in milliseconds.items()},
    }


async def _predict(service: Service, request: Request) -> Response:
    return await predict_as_tei(service, request, await read_body(service, request))


async def _at_root(service: Service, request: Request) -> Response:
    """As /predict. Clients of the hub, which post to the address itself, send `parameters`."""
    raw = await read_body(service, request)
    if b'"parameters"' in raw and (body := parsed(HubBody, raw)).parameters is not None:
        return await answer_hub(service, request, request.query_params.get("model"), body)
    return await predict_as_tei(service, request, raw)


async def _tei_info(service: Service, request: Request) -> Response:
    model = service.engine.table[request.query_params.get("model")]
    labels = dict(enumerate(model.label_names))
    limits = service.engine.limits
    return json_response(
        {
            "model_id": model.name,
            "model_sha": None,
            "model_dtype": model.precision.partition(",")[0],
            "model_type": {
                "classifier": {
                    "id2label": {str(k): name for k, name in labels.items()},
                    "label2id": {name: k for k, name in labels.items()},
                }
            },
            "max_concurrent_requests": limits.queued_tokens,
            "max_input_length": model.reader.max_length,
            "max_batch_tokens": limits.batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": limits.texts,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )


async def _tokenize(service: Service, request: Request) -> Response:
    body = parsed(TokenizeBody, await read_body(service, request))
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    model = service.engine.table[request.query_params.get("model")]
    rows = await service.tokens(model, texts, body.add_special_tokens)
    return json_response(
        [
            [
                {
                    "id": t.id,
                    "text": t.text,
                    "special": t.special,
                    "start": t.start,
                    "stop": t.stop,
                }
                for t in row
            ]
            for row in rows
        ]
    )


async def _tei_health(service: Service, _: Request) -> Response:
    if not service.engine.is_up:
        raise Refusal("stopping", "unhealthy")
    return Response(status_code=200)


async def _metrics(service: Service, _: Request) -> Response:
    return Response(service.figures.text(service.engine), media_type="text/plain; version=0.0.4")


TEI = (
    Door("POST", "/predict", _predict, refuse_as_tei, "Classify", TeiBody, counts=True),
    Door("POST", "/", _at_root, refuse_as_tei, "Classify", TeiBody, counts=True),
    Door("GET", "/info", _tei_info, refuse_as_tei, "A model and its labels"),
    Door("POST", "/tokenize", _tokenize, refuse_as_tei, "A text's tokens", TokenizeBody),
    Door("GET", "/health", _tei_health, refuse_as_tei, "Whether it answers", open=True),
    Door("GET", "/metrics", _metrics, refuse_as_tei, "Figures for Prometheus", open=True),
)
