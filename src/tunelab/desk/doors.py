"""All that the page asks for: a row each, with who may ask it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunelab.core.errors import InputError
from tunelab.desk.desk import Desk, DeskDoor
from tunelab.desk.file_doors import FILE
from tunelab.desk.new_doors import NEW
from tunelab.desk.session import refuse_other_origins
from tunelab.desk.shell import page_or_sign_of_life
from tunelab.desk.study_doors import STUDIES
from tunelab.desk.trying import try_text
from tunelab.serving.refusal import Refusal
from tunelab.serving.service import (
    Body,
    Door,
    Service,
    guarded,
    json_response,
    parsed,
    read_body,
    status_of,
)

__all__ = ["desk_routes"]


class TokenBody(Body):
    """What the server printed: the token, or the whole link."""

    token: str


class TryBody(Body):
    """A text, and the model that is asked (None: the first)."""

    model: str | None = None
    text: str


async def _open_session(desk: Desk, service: Service, request: Request) -> Response:
    given = parsed(TokenBody, await read_body(service, request)).token
    if not desk.session.fits(given.rpartition("token=")[2].strip()):
        raise Refusal("unauthorized", "That is not the token that the server printed.")
    response = Response(status_code=204)
    desk.session.keep(response)
    return response


async def _state(desk: Desk, service: Service, request: Request) -> Response:
    """Whether this browser has the token, and the models that answer."""
    models = [
        {"name": m.name, "labels": m.label_names, "calibrated": m.temperature is not None}
        for m in service.engine.table.models.values()
    ]
    return json_response({"opened": desk.session.has_opened(request), "models": models})


async def _try(_: Desk, service: Service, request: Request) -> Response:
    body = parsed(TryBody, await read_body(service, request))
    return json_response(asdict(await try_text(service, body.model, body.text)))


DESK_DOORS: tuple[DeskDoor, ...] = (
    DeskDoor("GET", "/desk/state", "client", _state),
    DeskDoor("POST", "/desk/try", "client", _try),
    *FILE,
    *STUDIES,
    *NEW,
)


def desk_routes(desk: Desk, service: Service) -> list[Route]:
    """The page and its doors."""
    page = Route("/", partial(page_or_sign_of_life, desk), methods=["GET"])
    # Anybody may try a token; the others' doors are checked by who may ask.
    to_session = Door(
        "POST", "/desk/session", partial(_open_session, desk), _refused, "", open=True
    )
    doors = [to_session, *(_door_for(row, desk) for row in DESK_DOORS)]
    return [page, *(Route(d.path, guarded(d, service), methods=[d.method]) for d in doors)]


def _door_for(row: DeskDoor, desk: Desk) -> Door:
    """A door that answers those who may ask."""

    async def answer(service: Service, request: Request) -> Response:
        refuse_other_origins(request)
        if row.who == "session":
            desk.session.check(request)
        elif not desk.session.has_opened(request):
            service.check_key(request)
        try:
            return await row.answer(desk, service, request)
        except InputError as e:
            raise Refusal("invalid", str(e)) from e

    return Door(row.method, row.path, answer, _refused, "", open=True)


def _refused(refusal: Refusal) -> Response:
    """{"error"}: the page shows it as it is."""
    status, headers = status_of(refusal)
    return json_response({"error": str(refusal)}, status, headers)
