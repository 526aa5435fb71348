"""The page's File: a file of texts in, labels as they come, the labelled file out."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from tunelab import data
from tunelab.core.errors import InputError
from tunelab.data.texts import TextFile
from tunelab.desk.desk import Desk, DeskDoor, save_upload
from tunelab.desk.labelling import LabelledWindow, label_file
from tunelab.serving.engine import ServingEngine
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import Served
from tunelab.serving.service import Service

__all__ = ["FILE"]

_KEPT = 4  # labelled files that may still be fetched
Line = dict[str, object]


async def _label(desk: Desk, service: Service, request: Request) -> Response:
    """Lines of JSON: what the file is, each window's rows, and in the end the file's id."""
    model = service.engine.table[request.query_params.get("model")]
    column = request.query_params.get("text_column") or None
    folder = desk.scratch / secrets.token_urlsafe(16)
    folder.mkdir()
    try:
        upload = await save_upload(request, folder)
        source = await asyncio.to_thread(data.open_texts, upload, column)
    except BaseException:
        shutil.rmtree(folder)
        raise
    lines = _Lines(service.engine, model, source, folder / f"{upload.stem}-labelled.csv")
    return StreamingResponse(lines.said(desk), media_type="application/x-ndjson")


class _Lines:
    """A file that is labelled beside the loop, told line by line. Who goes away ends it."""

    def __init__(self, engine: ServingEngine, model: Served, source: TextFile, out: Path) -> None:
        self._engine, self._model, self._source, self._out = engine, model, source, out
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._gone = False

    async def said(self, desk: Desk) -> AsyncIterator[str]:
        source = self._source
        head = {"rows": source.rows, "text_column": source.text_column, "notes": source.notes}
        kept = False
        try:
            yield _as_line(head)
            working = self._loop.run_in_executor(None, self._work)
            line = await self._lines.get()
            while "done" in line:
                yield _as_line(line)
                line = await self._lines.get()
            await working
            if kept := "file" in line:
                _keep(desk, self._out)
        finally:
            self._gone = True
            if not kept:
                shutil.rmtree(self._out.parent, ignore_errors=True)
        yield _as_line(line)

    def _work(self) -> None:
        folder = self._out.parent
        try:
            label_file(self._engine, self._model, self._source, self._out, self._tell)
            end: Line = {"file": folder.name}
        except BaseException as e:  # whatever a model raises is told, a tokenizer's panic too
            shutil.rmtree(folder, ignore_errors=True)
            known = isinstance(e, InputError | Refusal)
            end = {"error": str(e) if known else f"The model failed ({type(e).__name__})."}
        self._put(end)

    def _tell(self, window: LabelledWindow) -> None:
        if self._gone:
            raise ConnectionAbortedError
        self._put(asdict(window))

    def _put(self, line: Line) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def _as_line(value: Line) -> str:
    return json.dumps(value, ensure_ascii=True) + "\n"


def _keep(desk: Desk, out: Path) -> None:
    desk.labelled[out.parent.name] = out
    while len(desk.labelled) > _KEPT:
        oldest = desk.labelled.pop(next(iter(desk.labelled)))
        shutil.rmtree(oldest.parent, ignore_errors=True)


async def _labelled(desk: Desk, _: Service, request: Request) -> Response:
    """A labelled file, to be saved."""
    file = desk.labelled.get(request.query_params.get("file", ""))
    if file is None:
        raise Refusal("unknown", "That file is not kept any more. Label it again.")
    return FileResponse(file, media_type="text/csv; charset=utf-8", filename=file.name)


FILE = (
    DeskDoor("POST", "/desk/label", "session", _label),
    DeskDoor("GET", "/desk/labelled", "session", _labelled),
)
