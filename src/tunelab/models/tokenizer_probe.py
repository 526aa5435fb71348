"""A tokenizer tried on a few texts in a process of its own, which may be ended.

Patterns and replacements in a tokenizer.json can take forever, or all memory, on a text that looks
harmless (Davis et al. 2018, "The impact of regular expression denial of service in practice"). The
library computes them without a way to stop it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tunelab.core import cache
from tunelab.core.errors import ModelError

__all__ = [
    "refuse_endless",
]


_SECONDS = 20
# What only a tokenizer can hold that may be endless; most have none of it.
_SUSPECTS = (b'"Regex"', b'"Replace"', b'"Prepend"')
_TRY = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
except (ImportError, ValueError, OSError):
    pass
from tokenizers import Tokenizer
try:
    tokenizer = Tokenizer.from_file(sys.argv[1])
except Exception:
    sys.exit(0)  # whoever loads it says why
texts = ["A plain text, of 2 sentences. Isn't it?\\n\\n\\tYes!", "a" * 500, " " * 500]
for text in [*texts, "a" * 42 + "b z", "1 " * 200, "\\u00fc\\u65e5\\U0001f642" * 100]:
    made = len(tokenizer.encode(text).ids)
    if made > 200 * (len(text) + 10):
        sys.exit(f"{made:,} tokens of {len(text)} characters")
"""


def refuse_endless(name: str, folder: Path) -> None:
    """Raise ModelError for a tokenizer.json that does not come to an end, or needs all memory.

    What was fine once is remembered by content.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    content = file.read_bytes()
    if not any(suspect in content for suspect in _SUSPECTS):
        return
    known = cache.folder() / "tokenizers" / hashlib.sha256(content).hexdigest()[:32]
    if known.is_file():
        return
    # -P: a file called tokenizers.py beside a model that was fetched is not imported.
    command = [sys.executable, "-P", "-c", _TRY, str(file.absolute())]
    try:
        done = subprocess.run(  # noqa: S603  our own lines, by this Python
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"more than {_SECONDS} seconds for a few short texts"
    else:
        if not done.returncode:
            with suppress(OSError):  # a cache that cannot be written costs a second
                cache.replace(known, b"")
            return
        reason = (done.stderr.strip().splitlines() or ["it was ended by the system"])[-1]
    raise ModelError(
        f"Model {name}: its tokenizer.json cannot be used ({reason}). It is damaged, or made to do "
        "harm: take the original."
    )
