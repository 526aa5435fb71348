"""The page's New study: a file in, what is wrong with it, what would run, and the start."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from tunelab.core import files
from tunelab.desk import proposing
from tunelab.desk.desk import Desk, DeskDoor, save_upload
from tunelab.desk.proposing import ProposedStudy
from tunelab.serving.refusal import Refusal
from tunelab.serving.service import Body, Service, json_response, parsed, read_body

__all__ = ["NEW"]


class LookBody(Body):
    """Data, and the columns that are taken of it; "" is guessed."""

    data: str
    text_column: str = ""
    label_column: str = ""


class ProposedBody(LookBody):
    """A study to be planned, or begun."""

    name: str
    methods: list[str] = Field(min_length=1)
    seeds: int = Field(ge=1, le=1000)
    model: str = ""
    metric: str = ""
    tuning: bool = True
    drop_leaks: bool = False
    budget: str = ""

    def value(self) -> ProposedStudy:
        """As it is handed on."""
        return ProposedStudy(**{**self.model_dump(), "methods": tuple(self.methods)})


def _home(desk: Desk) -> Path:
    home = desk.studies.home
    if home is None:
        raise Refusal(
            "forbidden",
            "New studies need a folder to lie in: start the server with one of studies, or "
            "`tunelab ui FOLDER`.",
        )
    return home


async def _offer(desk: Desk, _: Service, __: Request) -> Response:
    return json_response(asdict(proposing.offered(_home(desk))))


async def _upload(desk: Desk, _: Service, request: Request) -> Response:
    home = _home(desk)
    folder = Path(tempfile.mkdtemp(dir=desk.scratch))
    try:
        upload = await save_upload(request, folder)
        name = await asyncio.to_thread(proposing.kept_upload, home, upload)
    finally:
        shutil.rmtree(folder)
    return json_response({"data": name})


async def _look(desk: Desk, service: Service, request: Request) -> Response:
    body = parsed(LookBody, await read_body(service, request))
    seen = await asyncio.to_thread(
        proposing.look_at, _home(desk), body.data, body.text_column, body.label_column
    )
    return json_response(asdict(seen))


async def _plan(desk: Desk, service: Service, request: Request) -> Response:
    proposed = parsed(ProposedBody, await read_body(service, request)).value()
    planned = await asyncio.to_thread(proposing.planned_study, _home(desk), proposed)
    return json_response(asdict(planned))


async def _begin(desk: Desk, service: Service, request: Request) -> Response:
    """Begin a study, in a process of its own."""
    home = _home(desk)
    proposed = parsed(ProposedBody, await read_body(service, request)).value()
    folder, words = proposed.folder(home), proposed.words(home)
    files.make_folder(home)
    desk.studies.runs.begin(folder, words)
    return json_response({"study": desk.studies.key(folder)})


NEW = (
    DeskDoor("GET", "/desk/new", "session", _offer),
    DeskDoor("POST", "/desk/upload", "session", _upload),
    DeskDoor("POST", "/desk/look", "session", _look),
    DeskDoor("POST", "/desk/plan", "session", _plan),
    DeskDoor("POST", "/desk/begin", "session", _begin),
)
