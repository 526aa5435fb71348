"""What an adapter's config asks of peft before its tensors are read, kept within bounds.

Patterns of module names can take for ever, as those of tokenizers can (`tokenizer_probe`); a rank,
or a replication of layers, is built before anybody could see that the file lacks it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tunelab.core.errors import ArtifactError
from tunelab.models import weights
from tunelab.models.bases import Base, weight_shapes
from tunelab.models.foreign import ADAPTER, WEIGHTS, read_object

__all__ = [
    "refuse_unbounded",
]

_SECONDS_TO_MATCH = 10
_MOST_TIMES = 16  # layers of a base that an adapter repeats
_MOST_ITERATIONS = 1_000  # of PiSSA's first guess
_MATCH_ALL = """
import json, re, sys
asked = json.load(sys.stdin)
for pattern in asked["patterns"]:
    try:
        made = [re.compile(pattern), re.compile(rf"(.*\\.)?({pattern})$")]
    except re.error:
        continue  # whoever loads it says why
    for name in asked["names"]:
        for one in made:
            one.fullmatch(name)
"""


def refuse_unbounded(directory: Path, base: Base) -> None:
    """Raise ArtifactError for an adapter's config that peft would not come to an end with."""
    config = read_object(directory / ADAPTER)
    layers = _layers_asked_for(config)
    shapes = weight_shapes(base)
    deepest = max((int(n) for s in shapes for n in re.findall(r"\.(\d+)\.", s)), default=0) + 1
    if layers > _MOST_TIMES * deepest:
        raise _refusal(directory, f"layer_replication asks for {layers:,} layers of {deepest}")
    tensors = weights.tensors(str(directory), directory / WEIGHTS).values()
    largest = max((n for t in tensors for n in t["shape"]), default=0)
    for rank in _ranks_asked_for(config):
        if rank > max(largest, 1):
            why = f"its rank is {rank:,}, and no tensor has more than {largest:,} rows"
            raise _refusal(directory, why)
    said = re.fullmatch(r"pissa_niter_(\d+)", str(config.get("init_lora_weights")))
    if said and (len(said[1]) > 6 or int(said[1]) > _MOST_ITERATIONS):
        raise _refusal(directory, f"init_lora_weights asks for {said[1][:20]} iterations")
    patterns = list(_patterns(config))
    if patterns and not _come_to_an_end(patterns, list(shapes)):
        long = f"takes more than {_SECONDS_TO_MATCH} seconds ({patterns[0][:60]!r})"
        why = f"a pattern of module names {long}"
        raise _refusal(directory, why)


def _refusal(directory: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{directory}: its adapter_config.json cannot be used: {why}. It is damaged, or made to do "
        "harm: take the original."
    )


def _layers_asked_for(config: Mapping[str, object]) -> int:
    """How many layers `layer_replication` makes of those that there are."""
    said = config.get("layer_replication")
    out = 0
    for pair in said if isinstance(said, list) else ():
        match pair:
            case [int(first), int(last)]:
                out += max(0, last - first)
    return out


def _ranks_asked_for(config: Mapping[str, object]) -> Iterator[int]:
    pattern = config.get("rank_pattern")
    values = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    yield from (v for v in values if isinstance(v, int))


def _patterns(config: Mapping[str, object]) -> Iterator[str]:
    """What peft takes for regular expressions; a plain name is none."""
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key)
        yield from (v for v in ([value] if isinstance(value, str) else ()) if _is_pattern(v))
    for key in ("rank_pattern", "alpha_pattern"):
        value = config.get(key)
        yield from (v for v in (value if isinstance(value, dict) else ()) if _is_pattern(v))


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*+{")


def _come_to_an_end(patterns: list[str], tensors: list[str]) -> bool:
    """Whether the patterns are matched with the names of all modules in time."""
    parts = [t.split(".")[:-1] for t in tensors]
    names = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    asked = json.dumps({"patterns": patterns, "names": sorted(names)})
    # -P: nothing of the current folder is imported.
    command = [sys.executable, "-P", "-c", _MATCH_ALL]
    try:
        subprocess.run(  # noqa: S603  our own lines, by this Python
            command,
            input=asked.encode(),
            capture_output=True,
            timeout=_SECONDS_TO_MATCH,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return True
