"""The server's application: every protocol's doors, the page, and the description of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunelab.serving.description import openapi_of
from tunelab.serving.protocols import DOORS
from tunelab.serving.service import Door, Service, guarded, json_response

__all__ = [
    "make_app",
]

_PAGE = Path(__file__).with_name("page.html")
# The page has all it needs in itself: it may load nothing, and be shown in no other.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src "
    "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def make_app(service: Service, ready: Callable[[], None] = lambda: None) -> Starlette:
    """The application of a service. When it ends, what was taken is finished first."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ready()
        yield
        await asyncio.to_thread(service.engine.close)

    routes = [Route(d.path, guarded(d, service), methods=[d.method]) for d in DOORS]
    description = openapi_of(DOORS)

    async def openapi(_: Request) -> Response:
        return json_response(description)

    return Starlette(
        routes=[*routes, Route("/", _root), Route("/openapi.json", openapi)],
        exception_handlers={HTTPException: _no_such_door(DOORS)},
        lifespan=lifespan,
    )


async def _root(request: Request) -> Response:
    """The page for browsers; for all others a sign of life."""
    if "text/html" not in request.headers.get("accept", ""):
        return Response(status_code=200)
    return Response(_page(), media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


@cache
def _page() -> bytes:
    return _PAGE.read_bytes()


def _no_such_door(doors: Sequence[Door]) -> Callable[[Request, Exception], Response]:
    paths = ", ".join(sorted({d.path for d in doors if d.counts}))

    def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  it is registered for these
        said = error.detail if error.status_code != 404 else f"Not Found. There are: {paths}"
        return json_response({"error": said}, error.status_code, error.headers)

    return refuse
