"""Memory, hardware and versions, measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tunelab.core.details import Hardware

__all__ = [
    "PeakMemory",
    "available_bytes",
    "hardware",
    "has_card",
    "is_amd",
    "multiplies_bfloat16",
    "resident_bytes",
    "versions",
]


_STATUS = Path("/proc/self/status")
_PACKAGES = ("torch", "transformers", "peft", "datasets", "scikit-learn", "numpy", "bitsandbytes")


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes; None where the system has no such file."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def resident_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not say."""
    return _status("VmRSS")


class PeakMemory:
    """Peak resident memory since it was made, less what the process held then.

    Linux keeps the peak itself (VmHWM), so nothing is missed between samples; it is reset first.
    Elsewhere `getrusage` gives the peak of the whole process, which is the same in a fresh one.
    One that is made while another runs takes nothing from the other's peak.
    """

    # The peaks that resets wiped out, in order.
    _wiped: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self._wiped.append(_status("VmHWM") or 0)
        self._since = len(self._wiped)
        # Without the reset, the peak may include what came before: never less.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = resident_bytes() or _rusage_peak()

    def bytes(self) -> int | None:
        """Peak so far above the baseline, at least 0."""
        peak = _status("VmHWM") or _rusage_peak()
        peak = peak and max([peak, *self._wiped[self._since :]])
        if peak is None or self._before is None:
            return None
        return max(0, peak - self._before)


def _rusage_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def versions() -> dict[str, str]:
    """Versions of Python and of what results depend on, as installed."""
    by_package = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            by_package[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return by_package


def hardware() -> Hardware:
    """Processor, cores that may be used, memory in bytes and operating system."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}"
    return Hardware(_processor(), cores, memory_bytes(), system)


def memory_bytes() -> int | None:
    """Physical memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def available_bytes() -> int | None:
    """Memory that new processes can have, a container's limit included; None where not said."""
    limits = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits += [int(ln.split()[1]) * 1024 for ln in lines if ln.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / n).read_text()) for n in ("memory.max", "memory.current"))
        # Files that are only cached count as used, and are given up when memory is wanted.
        stat = dict(ln.split() for ln in (group / "memory.stat").read_text().splitlines())
        limits.append(max(0, limit - used + int(stat.get("inactive_file", 0))))
    return min(limits, default=None)


def multiplies_bfloat16() -> bool:
    """Whether the processor says that it multiplies bfloat16, on matrix tiles or vectors."""
    said = _said_of_processor()
    return "amx_bf16" in said or "avx512_bf16" in said


def is_amd() -> bool:
    """Whether the processor says that it is one of AMD's."""
    return "AuthenticAMD" in _said_of_processor()


def _said_of_processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def has_card() -> bool:
    """Whether there is an NVIDIA card, asked without loading torch."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def _processor() -> str:
    for line in _said_of_processor().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
