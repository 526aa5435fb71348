"""What all protocols share: a request is let in, read, classified, counted and answered.

A protocol is a list of `Door`s: a path, a function from request to response, and the form in which
it says that something is refused.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tunelab.serving.engine import ScoredTexts, ServingEngine, check_texts, items_of
from tunelab.serving.figures import Figures
from tunelab.serving.loading import FIXED, Loader
from tunelab.serving.refusal import Fault, Refusal
from tunelab.serving.served import Item, Served, Token

__all__ = [
    "Body",
    "Door",
    "Service",
    "allowed_error",
    "guarded",
    "json_response",
    "parsed",
    "ranked",
    "read_body",
    "status_of",
    "wants_calibrated",
]

# Longer texts are read beside the loop, so that others are not kept waiting.
_READ_AT_ONCE = 20_000


class Body(BaseModel):
    """A request's body; what a contract does not name is let be."""

    model_config = ConfigDict(extra="ignore", strict=True)


AnyBody = TypeVar("AnyBody", bound=Body)
WhatIsRead = TypeVar("WhatIsRead")


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One server: its models and how it lets requests in.

    `keys`: bearer keys, any of which opens; empty: nothing is asked for. `adapter_dir`: below it
    lies what may be loaded while it runs. `flag`: labels for which moderation flags a text.
    """

    engine: ServingEngine
    loader: Loader
    figures: Figures
    keys: tuple[str, ...] = ()
    adapter_dir: Path | None = None
    flag: frozenset[str] = frozenset()
    log_texts: bool = False
    started: float = field(default_factory=time.time)

    async def classify(
        self, name: str | None, texts: Sequence[str], *, cut: bool = True, left: bool = False
    ) -> ScoredTexts:
        """What a model says of texts. Every protocol ends here. Raises Refusal."""
        self._check_count(len(texts))
        model = self.engine.table[name]
        items = await _read_beside_loop(texts, lambda: items_of(model, texts, cut=cut, left=left))
        answer = await self._answer(model, items)
        if self.log_texts:
            for text, row in zip(texts, answer.scores, strict=True):
                said = {"model": model.name, "label": model.label_names[int(row.argmax())]}
                print(json.dumps({**said, "text": text}, ensure_ascii=False), file=sys.stderr)
        return answer

    async def classify_items(self, name: str | None, items: Sequence[Item]) -> ScoredTexts:
        """As `classify`, of texts that are tokens already."""
        self._check_count(len(items))
        return await self._answer(self.engine.table[name], items)

    async def tokens(self, model: Served, texts: Sequence[str], special: bool) -> list[list[Token]]:
        """Texts in a model's tokens. Raises Refusal."""
        self._check_count(len(texts))
        check_texts(texts)
        return await _read_beside_loop(texts, lambda: model.reader.tokens(texts, special))

    def check_change(self, request: Request) -> None:
        """Raise Refusal where models may not be changed while the server runs, or where a page of
        another site asks for it: browsers send what any page bids them to this machine's servers,
        and name the page's site in `Origin`.
        """
        if self.adapter_dir is None:
            raise Refusal("forbidden", FIXED)
        origin = request.headers.get("origin")
        if origin is None or self._is_own(origin, request.headers.get("host", "")):
            return
        raise Refusal(
            "forbidden",
            "Models are not loaded or unloaded for a page of another site "
            f"(Origin: {origin[:200]}).",
        )

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether a page came from this server. A name of `host` that anybody may have pointed here
        says so only where a key was asked for too.
        """
        try:
            return urlsplit(origin).netloc == host and (bool(self.keys) or _is_of_machine(host))
        except ValueError:  # no address, or a name
            return False

    async def _answer(self, model: Served, items: Sequence[Item]) -> ScoredTexts:
        answer = await asyncio.wrap_future(self.engine.submit(model, items))
        self.figures.answered(answer)
        return answer

    def _check_count(self, texts: int) -> None:
        if not texts:
            raise Refusal("empty", "`inputs` cannot be empty")
        most = self.engine.limits.texts
        if texts > most:
            raise Refusal("too_many", f"batch size {texts} > maximum allowed batch size {most}")

    def check_key(self, request: Request) -> None:
        """Raise Refusal for a request without one of the keys. Every key is compared, in full."""
        if not self.keys:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        sent = given.strip().encode("latin-1")  # as it was decoded
        same = [hmac.compare_digest(sent, key.encode()) for key in self.keys]
        if scheme.lower() != "bearer" or not any(same):
            raise Refusal("unauthorized", "A valid key is needed: Authorization: Bearer KEY")


def _is_of_machine(host: str) -> bool:
    """Whether a Host header is an address, or localhost. Raises ValueError for another name."""
    name = urlsplit(f"//{host}").hostname or ""
    return name == "localhost" or bool(ipaddress.ip_address(name))


async def _read_beside_loop(texts: Sequence[str], read: Callable[[], WhatIsRead]) -> WhatIsRead:
    """What reading texts gives; of long ones, beside the loop."""
    short = sum(map(len, texts)) <= _READ_AT_ONCE
    return read() if short else await asyncio.to_thread(read)


Handler = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Door:
    """A path of a protocol. `body`: what it takes, for the description; `open`: without a key.

    `counts`: it asks for answers, and is counted as such; `changes`: which models there are.
    """

    method: str
    path: str
    answer: Handler
    refuse: Callable[[Refusal], Response]
    says: str
    body: type[Body] | None = None
    open: bool = False
    counts: bool = False
    changes: bool = False


def guarded(door: Door, service: Service) -> Callable[[Request], Awaitable[Response]]:
    """A door's answer, or its refusal; what goes wrong with us is printed, without any text."""

    async def handle(request: Request) -> Response:
        began = time.perf_counter()
        if door.counts:
            service.figures.asked(door.path)
        try:
            if not door.open:
                service.check_key(request)
            if door.changes:
                service.check_change(request)
            response = await door.answer(service, request)
        except Refusal as e:
            refusal = e
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            print(
                f"tunelab: {door.path}: {type(e).__name__} in {Path(where.filename).name}, line "
                f"{where.lineno}.{f' {e}' if service.log_texts else ''}",
                file=sys.stderr,
            )
            refusal = Refusal("failed", f"The model failed ({type(e).__name__}).")
        else:
            if door.counts and response.status_code < 400:  # else the door has refused by itself
                service.figures.succeeded(door.path, time.perf_counter() - began)
            return response
        if door.counts:
            service.figures.refused(refusal.fault)
        return door.refuse(refusal)

    return handle


async def read_body(service: Service, request: Request) -> bytes:
    """A request's body, up to the limit. Raises Refusal above it."""
    most = service.engine.limits.body
    refusal = Refusal("too_large", f"The body has more than {most} bytes.")
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > most:
        raise refusal
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise refusal
        parts.append(part)
    return b"".join(parts)


def parsed(kind: type[AnyBody], raw: bytes) -> AnyBody:
    """A body as its type. Raises Refusal, naming the first field that does not fit."""
    try:
        return kind.model_validate(json.loads(raw))
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refusal("invalid", f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as e:
        raise Refusal("invalid", f"The body is not JSON: {str(e).splitlines()[0][:200]}") from None


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON as everybody reads it: UTF-8, and no number that is none."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


_STATUS_OF: Mapping[Fault, int] = {
    "empty": 400,
    "invalid": 400,
    "no_tokens": 400,
    "too_long": 400,
    "too_many": 400,
    "too_large": 413,
    "unknown": 404,
    "exists": 400,
    "forbidden": 403,
    "unauthorized": 401,
    "overloaded": 429,
    "failed": 500,
    "stopping": 503,
}


def status_of(
    refusal: Refusal, own: Mapping[Fault, int] | None = None
) -> tuple[int, dict[str, str]]:
    """HTTP status and headers of a refusal; `own`: where a protocol has other ones."""
    status = {**_STATUS_OF, **(own or {})}[refusal.fault]
    headers = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return status, headers


def wants_calibrated(request: Request) -> bool | None:
    """What ?calibrated= asks for; None where it is not said. Raises Refusal for another value."""
    said = request.query_params.get("calibrated")
    if said is None:
        return None
    if said.lower() not in {"0", "1", "true", "false"}:
        raise Refusal("invalid", f"calibrated={said!r}: expected 1 or 0.")
    return said.lower() in {"1", "true"}


def allowed_error(request: Request) -> float | None:
    """What ?abstain= asks for: the share of all texts that may be answered wrongly; None where
    every text shall be answered. Raises Refusal for what is no such share.
    """
    said = request.query_params.get("abstain")
    if said is None:
        return None
    try:
        error = float(said)
    except ValueError:
        error = -1.0
    if not 0 < error < 1:
        raise Refusal("invalid", f"abstain={said!r}: expected an error between 0 and 1, say 0.05.")
    return error


def ranked(labels: Sequence[str], row: Sequence[float]) -> list[dict[str, str | float]]:
    """Labels with their scores, best first; of equal ones the first label."""
    order = sorted(range(len(labels)), key=lambda k: -row[k])
    return [{"label": labels[k], "score": float(row[k])} for k in order]
