"""The connection to a Ray cluster, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunelab.core import machine
from tunelab.core.errors import ConfigError
from tunelab.core.extras import install_line

__all__ = ["connected"]


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give `ray`, connected. Who has connected it before, from Python, keeps that connection.

    Raises ConfigError where ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError as e:
        raise ConfigError(
            f"engine: ray cannot be imported ({e}). Install it: {install_line('ray')}"
        ) from e
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this study
    here: dict[str, object] = {"num_cpus": machine.hardware().cores, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address == "local" else {}),
        )
    except Exception as e:  # of all kinds: nothing there, another version, no rights
        said = " ".join(str(e).split())[:200]
        raise ConfigError(
            f"address: no Ray cluster answers at {address} ({said}). Expected auto (the one that "
            "this machine belongs to: `ray start --head` begins one), ray://HOST:10001, HOST:6379, "
            "or local (one is started on this machine for the study)."
        ) from e
    try:
        with _silent(ray):
            yield ray
    finally:
        ray.shutdown()


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Ray prints what becomes of its processes on standard output, where a study's answer stands,
    and has no switch for it. What is lost, the study says itself.
    """
    prints = ray._private.worker
    said = getattr(prints, "print_to_stdstream", None)
    if said is not None:
        prints.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        if said is not None:
            prints.print_to_stdstream = said
