"""The page's Studies: the list, one of them, its trials as they run, its report, pause, go on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from tunelab import classifiers
from tunelab.core.run_log import LogReader
from tunelab.core.words import free_name
from tunelab.desk.desk import Desk, DeskDoor
from tunelab.desk.studies import words_to_go_on
from tunelab.serving.loading import NamedFolder
from tunelab.serving.refusal import Refusal
from tunelab.serving.service import Body, Service, json_response, parsed, read_body

__all__ = ["STUDIES"]

_SECONDS_BETWEEN_LOOKS = 0.3
_LOOKS_UNTIL_A_SIGN = 50  # of life, so that a browser that is gone is noticed
# The report runs its own code, and can reach nothing of this server with it.
_REPORT_HEADERS = {
    "content-security-policy": "sandbox allow-scripts allow-downloads allow-popups; "
    "frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class StudyBody(Body):
    """The study that is meant, by its key."""

    study: str


async def _list(desk: Desk, _: Service, __: Request) -> Response:
    lines = await asyncio.to_thread(desk.studies.lines)
    return json_response({"studies": [asdict(line) for line in lines]})


async def _one(desk: Desk, _: Service, request: Request) -> Response:
    details = await asyncio.to_thread(desk.studies.details, request.query_params.get("study", ""))
    return json_response(asdict(details))


async def _report(desk: Desk, _: Service, request: Request) -> Response:
    report = desk.studies.report(request.query_params.get("study", ""))
    if report is None:
        raise Refusal("unknown", "There is no report yet.")
    return FileResponse(report, media_type="text/html; charset=utf-8", headers=_REPORT_HEADERS)


async def _events(desk: Desk, _: Service, request: Request) -> Response:
    """What a study says, as it is written into its folder: server-sent events without an end."""
    folder = desk.studies.folder(request.query_params.get("study", ""))
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(_said(desk, folder), headers=headers, media_type="text/event-stream")


async def _said(desk: Desk, folder: Path) -> AsyncIterator[str]:
    reader, quiet = LogReader(folder), 0
    while not desk.stopping.is_set():
        lines = reader.new_lines()
        quiet = 0 if lines else quiet + 1
        if lines:
            yield "".join(f"data: {line}\n\n" for line in lines)
        elif quiet % _LOOKS_UNTIL_A_SIGN == 1:
            yield ": still here\n\n"
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


async def _folder_asked(desk: Desk, service: Service, request: Request) -> Path:
    return desk.studies.folder(parsed(StudyBody, await read_body(service, request)).study)


async def _pause(desk: Desk, service: Service, request: Request) -> Response:
    desk.studies.runs.pause(await _folder_asked(desk, service, request))
    return Response(status_code=204)


async def _go_on(desk: Desk, service: Service, request: Request) -> Response:
    folder = await _folder_asked(desk, service, request)
    desk.studies.runs.begin(folder, words_to_go_on(folder))
    return Response(status_code=204)


async def _load(desk: Desk, service: Service, request: Request) -> Response:
    """Load a study's best classifier, to be tried."""
    folder = await _folder_asked(desk, service, request)
    there, models = folder.resolve(), service.engine.table.models
    own = (n for n, m in models.items() if m.folder.resolve().is_relative_to(there))
    # The name of another's model is left to it.
    wanted = re.sub(r"[^\w.@+-]", "-", there.name)
    name = next(own, None) or free_name(wanted, models, "{}-{}")

    def load() -> None:
        best = NamedFolder(name, classifiers.classifier_folder(folder))
        service.engine.load(name, lambda: service.loader.open(best), replace=True)

    await asyncio.to_thread(load)
    return json_response({"model": name})


STUDIES = (
    DeskDoor("GET", "/desk/studies", "session", _list),
    DeskDoor("GET", "/desk/study", "session", _one),
    DeskDoor("GET", "/desk/report", "session", _report),
    DeskDoor("GET", "/desk/events", "session", _events),
    DeskDoor("POST", "/desk/pause", "session", _pause),
    DeskDoor("POST", "/desk/go-on", "session", _go_on),
    DeskDoor("POST", "/desk/load", "session", _load),
)
