"""A server from its settings: what it listens on, what it loads, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from tunelab.core.errors import ConfigError, InputError
from tunelab.serving.engine import ServingEngine, check_scores
from tunelab.serving.figures import Figures
from tunelab.serving.keys import API_KEYS
from tunelab.serving.loading import Loader, NamedFolder
from tunelab.serving.refusal import Limits, Refusal
from tunelab.serving.service import Service
from tunelab.serving.web import make_app

__all__ = [
    "RunningServer",
    "ServerSettings",
    "bound_socket",
    "make_service",
    "run_server",
]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is run; `keys`, `adapter_dir`, `flag` and `log_texts` as in `Service`."""

    host: str = "127.0.0.1"
    port: int = 8080
    keys: tuple[str, ...] = ()
    adapter_dir: Path | None = None
    flag: tuple[str, ...] = ()
    log_texts: bool = False
    precision: str = "auto"
    base_at: str | None = None
    trust_remote_code: bool = False
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
    if not models and settings.adapter_dir is None:
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
    """Ends quietly when it is asked to: what was begun is answered first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals come to the main thread alone
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


@dataclass(frozen=True, slots=True, eq=False)
class _Listening:
    """A server that has loaded its models and holds its socket; `run` answers until it ends."""

    server: _Uvicorn
    sock: socket.socket
    service: Service

    @property
    def address(self) -> str:
        return _address(self.sock)

    @property
    def sentence(self) -> str:
        names = ", ".join(self.service.engine.table.models) or "no model yet"
        return f"Serving {names} at {self.address}"

    def run(self) -> None:
        self.server.run(sockets=[self.sock])


@contextlib.contextmanager
def _ready_to_listen(
    models: Callable[[], Sequence[NamedFolder]],
    settings: ServerSettings,
    ready: Callable[[_Listening], None],
) -> Iterator[_Listening]:
    """Bind, then load: an address that is taken is said at once. What is worth saying is said."""
    with bound_socket(settings.host, settings.port) as sock:
        service = make_service(models(), settings)
        if not settings.keys and not _is_loopback(sock):
            print(
                f"tunelab: {_address(sock)} can be reached from other machines, and asks for no "
                f"key. Set one: --api-key-file FILE, or {API_KEYS}.",
                file=sys.stderr,
            )
        for model in service.engine.table.models.values():
            for note in model.notes:
                print(f"{model.name}: {note}", file=sys.stderr)
        config = uvicorn.Config(
            make_app(service, lambda: ready(listening)),
            log_config=None, access_log=False, server_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        listening = _Listening(_Uvicorn(config), sock, service)
        try:
            yield listening
        finally:
            service.engine.close()  # where it never came to run; else it is closed already


def run_server(
    models: Callable[[], Sequence[NamedFolder]],
    settings: ServerSettings,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM). In the main thread."""
    with _ready_to_listen(models, settings, lambda listening: say(listening.sentence)) as listening:
        listening.run()


class RunningServer:
    """A server in a thread of its own, at `url`. `stop` ends it, as a with-block does at its end:
    what was asked is answered first.
    """

    def __init__(
        self, models: Callable[[], Sequence[NamedFolder]], settings: ServerSettings
    ) -> None:
        ready = threading.Event()
        with contextlib.ExitStack() as stack:
            self._listening = stack.enter_context(
                _ready_to_listen(models, settings, lambda _: ready.set())
            )
            self._thread = threading.Thread(
                target=self._listening.run, name="tunelab-server", daemon=True
            )
            self._thread.start()
            while not ready.wait(0.05):
                if not self._thread.is_alive():
                    raise InputError(f"The server at {self._listening.address} ended at once.")
            self._left = stack.pop_all()
        self.url = self._listening.address

    def __repr__(self) -> str:
        """What it serves, and where."""
        return f"RunningServer({self._listening.sentence if self._thread.is_alive() else 'ended'})"

    def __enter__(self) -> RunningServer:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def wait(self) -> None:
        """Until it ends: somebody stops it, or Ctrl-C, which ends it."""
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.stop()

    def stop(self) -> None:
        """Take no more requests, answer those that are there, and give the address back."""
        self._listening.server.should_exit = True
        self._thread.join()
        self._left.close()


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
