"""What stands behind the page, and the form of its doors."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from tunelab.desk.session import Session
from tunelab.desk.studies import StudiesOfFolders
from tunelab.serving.refusal import Refusal
from tunelab.serving.service import Service

__all__ = ["AnswerOfDoor", "Desk", "DeskDoor", "save_upload"]

_MOST_UPLOADED = 2_000_000_000  # bytes of a file that is dropped


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """Who may use the page, its studies, and a folder for what is not kept.

    `stopping`: set when the server is asked to end. `labelled`: files that were labelled, by a name
    that cannot be guessed.
    """

    session: Session
    scratch: Path
    studies: StudiesOfFolders
    stopping: threading.Event = field(default_factory=threading.Event)
    labelled: dict[str, Path] = field(default_factory=dict)


AnswerOfDoor = Callable[[Desk, Service, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class DeskDoor:
    """A path of the page. `who`: the browser with the token ("session"), or also everybody whom
    the server answers ("client": with a key, where keys are set).
    """

    method: str
    path: str
    who: Literal["session", "client"]
    answer: AnswerOfDoor


async def save_upload(request: Request, folder: Path) -> Path:
    """Write a request's body into a folder, under the name (?name=) that it has for the user, of
    letters, digits, dots and dashes. Raises Refusal for one that is too large.
    """
    given = request.query_params.get("name", "").replace("\\", "/")
    name = re.sub(r"[^\w.-]", "_", Path(given).name).lstrip(".")[-80:] or "file"
    size = 0
    with (folder / name).open("wb") as out:
        async for part in request.stream():
            size += len(part)
            if size > _MOST_UPLOADED:
                raise Refusal("too_large", f"{name}: has more than {_MOST_UPLOADED:,} bytes.")
            out.write(part)
    return folder / name
