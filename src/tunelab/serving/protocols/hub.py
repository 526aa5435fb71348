"""As the hub's clients ask (huggingface_hub, @huggingface/inference): answers are always nested."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from tunelab.serving.engine import ScoredTexts
from tunelab.serving.refusal import Refusal
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
    "HUB",
    "HubBody",
    "answer_hub",
]


class HubParameters(Body):
    """How many labels are given, and what is made of the scores."""

    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class HubBody(Body):
    """A text, or texts."""

    inputs: str | list[str]
    parameters: HubParameters | None = None


def _refuse_as_hub(refusal: Refusal) -> Response:
    status, headers = status_of(refusal)
    return json_response({"error": str(refusal)}, status, headers)


def _applied(
    answer: ScoredTexts, function: str | None, calibrated: bool | None
) -> NDArray[np.float64]:
    if function in {"none", "sigmoid"} and calibrated:
        raise Refusal("invalid", f"calibrated=1 goes with softmax, found {function}.")
    if function == "none":
        return answer.scores
    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(answer.scores, -500, 500))))
    return answer.probabilities(calibrated)


async def answer_hub(
    service: Service, request: Request, name: str | None, body: HubBody
) -> Response:
    """A list for each text: its labels, best first; of one that is not answered, none."""
    asked = body.parameters or HubParameters()
    calibrated, error = wants_calibrated(request), allowed_error(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    answer = await service.classify(name, texts)
    rows = _applied(answer, asked.function_to_apply, calibrated)
    said = [
        ranked(answer.model.label_names, row)[: asked.top_k] if answered else []
        for row, answered in zip(rows, answer.answered(error), strict=True)
    ]
    return json_response(said)


async def _hub_model(service: Service, request: Request) -> Response:
    body = parsed(HubBody, await read_body(service, request))
    return await answer_hub(service, request, request.path_params["name"], body)


async def _hub_info(service: Service, request: Request) -> Response:
    model = service.engine.table[request.path_params["name"]]
    labels = {str(k): name for k, name in enumerate(model.label_names)}
    return json_response(
        {
            "model_id": model.name,
            "pipeline_tag": "text-classification",
            "model_type": {
                "classifier": {
                    "id2label": labels,
                    "label2id": {name: int(k) for k, name in labels.items()},
                }
            },
            "max_input_length": model.reader.max_length,
        }
    )


async def _hub_health(service: Service, request: Request) -> Response:
    _ = service.engine.table[request.path_params["name"]]
    return Response(status_code=200)


HUB = (
    Door("POST", "/models/{name}", _hub_model, _refuse_as_hub, "Classify", HubBody, counts=True),
    Door("GET", "/models/{name}/info", _hub_info, _refuse_as_hub, "A model and its labels"),
    Door(
        "GET", "/models/{name}/health", _hub_health, _refuse_as_hub, "Whether it answers", open=True
    ),
)
