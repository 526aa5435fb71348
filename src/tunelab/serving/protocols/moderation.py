"""As OpenAI's clients ask for moderation: any labels are categories."""

from __future__ import annotations

import uuid
from typing import Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from tunelab.serving.protocols.vllm import refuse_as_vllm
from tunelab.serving.service import (
    Body,
    Door,
    Service,
    allowed_error,
    json_response,
    parsed,
    read_body,
    wants_calibrated,
)

__all__ = [
    "MODERATION",
]


class TextPart(Body):
    """A text, as the client wraps it beside pictures, which no model here reads."""

    type: Literal["text"]
    text: str


class ModerationBody(Body):
    """A text, or texts."""

    input: str | list[str] | list[TextPart]
    model: str | None = None


async def _moderate(service: Service, request: Request) -> Response:
    """A text's category is its label; it is flagged where that is one of the server's --flag. One
    that is not answered has no category.
    """
    body = parsed(ModerationBody, await read_body(service, request))
    calibrated, error = wants_calibrated(request), allowed_error(request)
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [t if isinstance(t, str) else t.text for t in given]
    answer = await service.classify(body.model, texts)
    labels = answer.model.label_names
    results = []
    rows = zip(answer.probabilities(calibrated), answer.answered(error), strict=True)
    for row, answered in rows:
        best = labels[int(np.argmax(row))] if answered else None
        results.append(
            {
                "flagged": best in service.flag,
                "categories": {label: label == best for label in labels},
                "category_scores": {k: float(p) for k, p in zip(labels, row, strict=True)},
                "category_applied_input_types": {label: ["text"] for label in labels},
            }
        )
    said = {"id": f"modr-{uuid.uuid4().hex}", "model": answer.model.name, "results": results}
    return json_response(said)


MODERATION = (
    Door(
        "POST",
        "/v1/moderations",
        _moderate,
        refuse_as_vllm,
        "Classify: labels are categories",
        ModerationBody,
        counts=True,
    ),
)
