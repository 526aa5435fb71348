"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Running:
    """A server's address, its process, and the file of what it writes to standard error.

    `link`: to its page, with the token.
    """

    url: str
    process: subprocess.Popen[str]
    log: Path
    link: str

    def stop(self) -> int:
        """End it as a system does, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running_server(
    log: Path, *args: object, env: dict[str, str] | None = None, verb: str = "serve"
) -> Iterator[Running]:
    """While inside, `tunelab serve` runs with these arguments, on any free port."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunelab.cli", verb, *map(str, args), "--port", "0"],
            stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    try:
        url = _address(process, log)
        assert process.stdout is not None
        link = re.search(r"http://\S+token=\S+", process.stdout.readline())  # said together
        assert link
        yield Running(url, process, log, link[0])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    until = time.monotonic() + 300
    while time.monotonic() < until:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address, f"{line!r} {log.read_text('utf-8')}"
            return address[0]
    raise AssertionError(f"no server after five minutes: {log.read_text('utf-8')}")
