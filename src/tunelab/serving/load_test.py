"""How many answers a second a server gives, and how long each takes, by concurrency.

Every client waits for its answer before it asks again (a closed loop). Standard library only.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from tunelab.core.errors import InputError

__all__ = [
    "LoadFigures",
    "load_test",
    "server_models",
]

SAMPLE_TEXTS = (
    "a quiet, wonderful film",
    "I would not watch this again, and I would not wish it on anybody who likes cinema.",
    "The plot is thin and the actors seem to know it; still, an hour and a half passed quickly.",
    "fine",
)


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """Of one number of clients: answers, those refused (429) and failed, and seconds until an
    answer (quantiles; None where there was none).
    """

    clients: int
    answers: int
    refused: int
    failed: int
    texts_per_second: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(slots=True)
class _Tally:
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    url: str
    key: str | None
    timeout: float = 60.0

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        return kind(parts.hostname or "", parts.port, timeout=self.timeout)

    def ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None
    ) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        raw = None if body is None else json.dumps(body).encode()
        connection.request(method, urlsplit(self.url).path.rstrip("/") + path, raw, headers)
        response = connection.getresponse()
        return response.status, response.read()


def _target_at(url: str, key: str | None) -> _Target:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is none
        fits = False
    if not fits:
        raise InputError(f"{url}: expected an address such as http://127.0.0.1:8080.")
    return _Target(url.rstrip("/"), key)


def server_models(url: str, key: str | None = None) -> list[str]:
    """The models of a server that can be asked. Raises InputError where none answers there."""
    target = _target_at(url, key)
    connection = target.connect()
    try:
        status, raw = target.ask(connection, "POST", "/v2/repository/index", {})
        if status == 401:
            raise InputError(f"{url}: asks for a key. Give --api-key-file, or TUNELAB_API_KEYS.")
        names = [str(m["name"]) for m in json.loads(raw)]
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as e:
        said = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise InputError(f"{url}: expected a tunelab server, found none ({said}).") from e
    finally:
        connection.close()
    if not names:
        raise InputError(f"{url}: the server holds no model.")
    return names


def load_test(
    url: str,
    clients: int,
    seconds: float,
    models: Sequence[str],
    *,
    texts: Sequence[str] = SAMPLE_TEXTS,
    key: str | None = None,
) -> LoadFigures:
    """Ask with so many clients for so long, models and texts in turn, one text a request."""
    target = _target_at(url, key)
    asked = itertools.count()
    until = time.perf_counter() + seconds
    tallies = [_Tally() for _ in range(clients)]

    def client(tally: _Tally) -> None:
        connection = target.connect()
        while time.perf_counter() < until:
            i = next(asked)
            body = {"model": models[i % len(models)], "input": texts[i % len(texts)]}
            began = time.perf_counter()
            try:
                status, _ = target.ask(connection, "POST", "/classify", body)
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            if status == 200:
                tally.seconds.append(time.perf_counter() - began)
            elif status == 429:
                tally.refused += 1
            else:
                tally.failed += 1
        connection.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=client, args=(t,), daemon=True) for t in tallies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    each = np.asarray([s for t in tallies for s in t.seconds])
    quantiles = [float(np.percentile(each, q)) if len(each) else None for q in (50, 95, 99)]
    return LoadFigures(
        clients,
        len(each),
        sum(t.refused for t in tallies),
        sum(t.failed for t in tallies),
        len(each) / took,
        *quantiles,
    )
