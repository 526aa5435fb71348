"""The server's application: every protocol's doors, and the description of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tunelab.serving.description import openapi_of
from tunelab.serving.protocols import DOORS
from tunelab.serving.service import Door, Service, guarded, json_response

__all__ = [
    "MoreRoutes",
    "make_app",
]


@dataclass(frozen=True, slots=True)
class MoreRoutes:
    """What else a server answers: `routes`, asked before its own; `says`, lines for its start;
    `stop`, told when it is asked to end, so that answers without an end come to one.
    """

    routes: Sequence[BaseRoute] = ()
    says: Sequence[str] = ()
    stop: Callable[[], None] = lambda: None


def make_app(
    service: Service,
    ready: Callable[[], None] = lambda: None,
    more: Sequence[BaseRoute] = (),
) -> Starlette:
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
        routes=[*more, *routes, Route("/", _sign_of_life), Route("/openapi.json", openapi)],
        exception_handlers={HTTPException: _no_such_door(DOORS)},
        lifespan=lifespan,
    )


async def _sign_of_life(_: Request) -> Response:
    return Response(status_code=200)


def _no_such_door(doors: Sequence[Door]) -> Callable[[Request, Exception], Response]:
    paths = ", ".join(sorted({d.path for d in doors if d.counts}))

    def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  it is registered for these
        said = error.detail if error.status_code != 404 else f"Not Found. There are: {paths}"
        return json_response({"error": said}, error.status_code, error.headers)

    return refuse
