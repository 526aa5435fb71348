"""Classifiers behind HTTP, for Python: `tunelab.serve`.

import tunelab

with tunelab.serve({"mood": "runs/mood"}, port=0, background=True) as server:
    print(server.url)
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from tunelab.classifiers import classifier_folder
from tunelab.core.errors import InputError
from tunelab.core.extras import install_line
from tunelab.core.values import Artifact

if TYPE_CHECKING:
    from tunelab.serving.listening import RunningServer

__all__ = ["refuse_without_extra", "serve"]

ModelFolder = str | Path | Artifact


@overload
def serve(
    models: ModelFolder | Sequence[ModelFolder] | Mapping[str, ModelFolder] = ...,
    *,
    host: str = ...,
    port: int = ...,
    background: Literal[False] = ...,
    api_keys: Sequence[str] = ...,
    adapter_dir: str | Path | None = ...,
    flag: Sequence[str] = ...,
    precision: str = ...,
    model: str | Path | None = ...,
    trust_remote_code: bool = ...,
) -> None: ...


@overload
def serve(
    models: ModelFolder | Sequence[ModelFolder] | Mapping[str, ModelFolder] = ...,
    *,
    host: str = ...,
    port: int = ...,
    background: Literal[True],
    api_keys: Sequence[str] = ...,
    adapter_dir: str | Path | None = ...,
    flag: Sequence[str] = ...,
    precision: str = ...,
    model: str | Path | None = ...,
    trust_remote_code: bool = ...,
) -> RunningServer: ...


def serve(
    models: ModelFolder | Sequence[ModelFolder] | Mapping[str, ModelFolder] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    background: bool = False,
    api_keys: Sequence[str] = (),
    adapter_dir: str | Path | None = None,
    flag: Sequence[str] = (),
    precision: str = "auto",
    model: str | Path | None = None,
    trust_remote_code: bool = False,
) -> RunningServer | None:
    """Serve classifiers over HTTP, as `tunelab serve` does, until Ctrl-C.

    `models`: a folder (of a classifier, a trial or a study, whose best model it is), several, or
    folders by name. `background`: serve in a thread, and give the server at once, for notebooks and
    tests: it has `url` and `stop()`, and ends with its with-block. `port`: 0 for any free one.
    `api_keys`: else those of TUNELAB_API_KEYS. `adapter_dir`, `flag`, `precision`, `model` and
    `trust_remote_code` are the flags of the command. Raises InputError for what cannot be loaded,
    and for an address that cannot be listened on.
    """
    refuse_without_extra()
    from tunelab.serving.keys import checked_keys
    from tunelab.serving.listening import RunningServer, ServerSettings, run_server
    from tunelab.serving.loading import named_folders

    settings = ServerSettings(
        host=host,
        port=port,
        keys=checked_keys(api_keys),
        adapter_dir=None if adapter_dir is None else Path(adapter_dir),
        flag=tuple(flag),
        precision=precision,
        base_at=None if model is None else str(model),
        trust_remote_code=trust_remote_code,
    )
    folders = named_folders(_by_name(models), classifier_folder)
    if background:
        return RunningServer(lambda: folders, settings)
    if threading.current_thread() is threading.main_thread() and not _in_a_loop():
        run_server(lambda: folders, settings)
        return None
    server = RunningServer(lambda: folders, settings)
    print(f"Serving at {server.url}", flush=True)
    server.wait()
    return None


def _by_name(
    models: ModelFolder | Sequence[ModelFolder] | Mapping[str, ModelFolder],
) -> list[tuple[str | None, Path]]:
    if isinstance(models, Mapping):
        return [(name, _folder(m)) for name, m in models.items()]
    if isinstance(models, ModelFolder):
        return [(None, _folder(models))]
    return [(None, _folder(m)) for m in models]


def _folder(given: ModelFolder) -> Path:
    return given.directory if isinstance(given, Artifact) else Path(given)


def _in_a_loop() -> bool:
    """Whether an event loop runs in this thread already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_without_extra() -> None:
    """Raise InputError where what a server needs is not installed."""
    needed = ("starlette", "uvicorn", "prometheus_client")
    lacking = next((name for name in needed if importlib.util.find_spec(name) is None), None)
    if lacking is not None:
        raise InputError(
            f"serve needs {lacking}, which is not installed. Install it: {install_line('serve')}"
        )
