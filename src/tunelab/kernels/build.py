"""The library of `kernels/cpp`: compiled when it is first needed, kept in the user's cache.

Once for each machine and release of torch; nothing is compiled at import or on installation. torch
is not imported here: a study's worker has the kernels compiled while it imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from tunelab.core import cache, files
from tunelab.core.errors import ConfigError

__all__ = [
    "SOURCE",
    "build",
    "compiler",
    "library",
    "named_library",
    "not_built",
    "processor",
]


# The compiled unit, which includes the headers beside it.
SOURCE = Path(str(resources.files("tunelab") / "kernels" / "cpp" / "abi.cpp"))
_FLAGS = [
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-ffast-math",
    "-fno-finite-math-only",
    "-std=c++17",
    "-fPIC",
]


def library() -> tuple[Path | None, str | None]:
    """Where the compiled kernels lie, compiling them if need be; or None and why there are none."""
    if os.environ.get("TUNELAB_KERNELS", "").lower() == "off":
        return None, "TUNELAB_KERNELS=off"
    if path := named_library():
        if why := cache.distrust(path):
            raise ConfigError(
                f"TUNELAB_KERNELS={path}: is not loaded: {why}. Name a library that only you can "
                "have written, or unset TUNELAB_KERNELS."
            )
        return path, None
    if sys.platform == "win32":
        return None, "not built on Windows"
    try:
        return _library_in_cache()
    except (OSError, subprocess.SubprocessError, ImportError) as e:
        return None, not_built((getattr(e, "stderr", None) or str(e)) or type(e).__name__)


def _library_in_cache() -> tuple[Path | None, str | None]:
    """The library in the user's cache, made anew where it is not what this user has built."""
    built = cache.machine_folder() / f"kernels-{_library_key()}.so"
    files.make_folder(built.parent.parent)
    built.parent.mkdir(mode=0o700, exist_ok=True)
    if why := cache.distrust(built.parent / "any"):
        # Of root too: what another user can write must not run with the rights of all.
        cache.tell(
            f"no compiled kernels, so trainings are slower: {why}. Set TUNELAB_CACHE to a folder "
            "that is your own"
        )
        return None, f"no code is loaded from the cache: {why}"
    if why := cache.distrust(built):
        cache.tell(f"{why}: the kernels are built anew")
    if why or not built.is_file() or not cache.is_whole(built):
        if compiler() is None:
            return None, "no C++ compiler (g++ or clang++) was found"
        build(built)
    return built, None


def named_library() -> Path | None:
    """The library that TUNELAB_KERNELS names, which `build` has made otherwise."""
    path = os.environ.get("TUNELAB_KERNELS", "")
    return Path(path).resolve() if path.endswith(".so") else None


def _library_key() -> str:
    """What the library depends on: every source file, flags, release of torch, processor."""
    torch = importlib.metadata.version("torch").encode()
    parts = [b"sealed", " ".join(_FLAGS).encode(), torch, processor()]
    for file in sorted([SOURCE, *SOURCE.parent.glob("*.h")]):
        parts += [file.name.encode(), file.read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def not_built(said: str) -> str:
    """Why there are no kernels, in one line."""
    lines = said.strip().splitlines()
    return f"the kernels could not be built ({lines[0] if lines else 'nothing was said'})"


def _torch() -> Path:
    """Where torch is installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ImportError("torch is not installed")
    return Path(spec.origin).parent


def processor() -> bytes:
    """What -march=native depends on: a cache in a home folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    kept = [ln for ln in lines if ln.startswith(("model name", "flags", "Features", "CPU part"))]
    return "\n".join(sorted(set(kept))).encode()


def compiler() -> str | None:
    """The C++ compiler that is found first."""
    return next((c for c in ("g++", "c++", "clang++") if shutil.which(c)), None)


def build(to: Path, flags: Sequence[str] = ()) -> None:
    """Compile into a file beside its place, then rename: processes that build at once do no harm.

    `flags` come behind the usual ones. Raises OSError or subprocess.SubprocessError.
    """
    chosen = compiler() or "c++"
    to.parent.mkdir(parents=True, exist_ok=True)
    # What a process that was killed left behind; a build takes seconds.
    for old in to.parent.glob(f".{to.name}.*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                old.unlink()
    # torch's own OpenMP runtime: with a second one beside it, two pools of threads would compete.
    libraries = _torch() / "lib"
    runtimes = sorted(libraries.glob("libgomp*.so*"))
    threads = ["-fopenmp"] if runtimes else ["-fopenmp-simd"]
    link = [str(runtimes[0]), f"-Wl,-rpath,{libraries}"] if runtimes else []
    with files.replacing(to, private=True) as draft:
        part = draft.with_name(f"{draft.name}.o")
        try:
            for command in (
                [chosen, *_FLAGS, *threads, *flags, "-c", str(SOURCE), "-o", str(part)],
                [chosen, "-shared", str(part), "-o", str(draft), *link],
            ):  # our own file, a compiler from PATH
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)  # noqa: S603
            cache.seal_entry(draft)  # a loader reads no further than the library's own tables say
        finally:
            part.unlink(missing_ok=True)
