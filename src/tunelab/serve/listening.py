"""A server from its settings: what it listens on, what it loads, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from tunelab.core.errors import ConfigError, InputError
from tunelab.serve.engine import ServingEngine, check_scores
from tunelab.serve.figures import Figures
from tunelab.serve.keys import API_KEYS
from tunelab.serve.loading import Loader, NamedFolder
from tunelab.serve.refusal import Limits, Refusal
from tunelab.serve.service import Service
from tunelab.serve.web import MoreRoutes, make_app

__all__ = [
    "ServerSettings",
    "bound_socket",
    "make_service",
    "run_server",
]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is run; `keys`, `adapter_dir`, `flag` and `log_texts` as in `Service`.

    `may_be_empty`: it may start without a model.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    keys: tuple[str, ...] = ()
    adapter_dir: Path | None = None
    flag: tuple[str, ...] = ()
    log_texts: bool = False
    precision: str = "auto"
    base_at: str | None = None
    trust_remote_code: bool = False
    may_be_empty: bool = False
    limits: Limits = field(default_factory=Limits)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address. Raises InputError where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as e:
        raise InputError(f"--host {host}: there is no such address ({e}).") from e
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(2048)
    except (OSError, OverflowError) as e:
        sock.close()
        if getattr(e, "errno", None) == errno.EADDRINUSE:
            raise InputError(
                f"--port {port}: is taken on {host}. Choose another, or 0 for any free one."
            ) from e
        raise InputError(f"--host {host} --port {port}: cannot be listened on ({e}).") from e
    return sock


def make_service(models: Sequence[NamedFolder], settings: ServerSettings) -> Service:
    """Load the models, score each once, and put them behind one engine. Raises InputError."""
    if not (models or settings.adapter_dir or settings.may_be_empty):
        raise InputError("Nothing to serve: give folders of classifiers, or --adapter-dir.")
    root = settings.adapter_dir
    if root is not None and not root.expanduser().is_dir():
        raise ConfigError(f"--adapter-dir {root}: there is no such folder.")
    loader = Loader(
        settings.precision,
        base_at=settings.base_at,
        trust_remote_code=settings.trust_remote_code,
    )
    served = [loader.open(model) for model in models]
    try:
        for model in served:
            check_scores(model)
    except Refusal as e:
        raise InputError(str(e)) from e
    labels = {label for model in served for label in model.label_names}
    strange = next((label for label in settings.flag if served and label not in labels), None)
    if strange is not None:
        known = ", ".join(sorted(labels))
        raise ConfigError(f"--flag {strange}: expected a label of a model ({known}).")
    figures = Figures()
    return Service(
        ServingEngine(served, settings.limits, figures.computed),
        loader,
        figures,
        settings.keys,
        root.expanduser() if root is not None else None,
        frozenset(settings.flag),
        settings.log_texts,
    )


class _Uvicorn(uvicorn.Server):
    """Ends quietly when it is asked to, which `stop` is told: what was begun is answered first."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


def run_server(
    models: Callable[[], Sequence[NamedFolder]],
    settings: ServerSettings,
    say: Callable[[str], None] = print,
    more: Callable[[Service, str], MoreRoutes] = lambda *_: MoreRoutes(),
) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM).

    `more`: what else is answered, from the service and its address.
    """
    sock = bound_socket(settings.host, settings.port)
    with sock:
        service = make_service(models(), settings)
        address = _address(sock)
        if not settings.keys and not _is_loopback(sock):
            print(
                f"tunelab: {address} can be reached from other machines, and asks for no key. "
                f"Set one: --api-key-file FILE, or {API_KEYS}.",
                file=sys.stderr,
            )
        for model in service.engine.table.models.values():
            for note in model.notes:
                print(f"{model.name}: {note}", file=sys.stderr)
        names = ", ".join(service.engine.table.models) or "no model yet"
        other = more(service, address)
        lines = (f"Serving {names} at {address}", *other.says)
        app = make_app(service, lambda: say("\n".join(lines)), other.routes)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=75
        )
        _Uvicorn(config, other.stop).run(sockets=[sock])


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
