"""Running the command line in tests: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# For `compare`: little training, and no settings tried before it.
FAST = ("--num-train-epochs", "1", "--max-length", "32", "--per-device-train-batch-size", "8",
        "--tuning", "off")  # fmt: skip


@dataclass(frozen=True)
class Said:
    """How a run of the command line ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        return self.err.splitlines()


class _Terminalless(io.StringIO):
    """A stream that is no terminal; text written to it is kept."""

    def isatty(self) -> bool:
        return False


def run_here(*args: object, stdin: str = "") -> Said:
    """Run the command line in this process (trials have processes of their own all the same)."""
    from tunelab.cli import command_line
    from tunelab.models import bases

    # A process lives as long as one command: what it remembers of files must not reach the next.
    bases.resolve.cache_clear()
    bases._sha256.cache_clear()
    out, err = _Terminalless(), _Terminalless()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tunelab", *map(str, args)])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                command_line.run_command_line()
            except SystemExit as e:
                code = int(e.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "tunelab.cli", *map(str, args)]


def run_fresh(*args: object, stdin: str | None = None, cwd: Path | None = None) -> Said:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        command(*args), input=stdin, capture_output=True, text=True, cwd=cwd, timeout=300,
        check=False, env={**os.environ, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


_ARRAYS = {"pandas", "pyarrow", "scipy", "sklearn"}
_MODELS = {"torch", "transformers", "peft", "tokenizers", "datasets"}
_HEAVY = {*_ARRAYS, *_MODELS, "pydantic", "altair", "jinja2", "yaml", "rich", "bitsandbytes"}

_COMMAND = """
import json, sys
from tunelab.cli import main
sys.argv = ["tunelab", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted({m.split(".")[0] for m in sys.modules})))
"""


def imported_by(*command: object) -> set[str]:
    """The heavy packages that a command has imported when it ends."""
    argument = json.dumps([str(c) for c in command])
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, argument], capture_output=True, text=True, check=True
    )
    return _HEAVY & set(json.loads(done.stdout.strip().splitlines()[-1]))
