"""What `max_length: auto` stands for in a study: a number, before anything is planned with it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunelab.core import study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.plain import SettingValues
from tunelab.core.text_lengths import TextLengths
from tunelab.core.values import MethodSpec
from tunelab.methods import virtual_tokens
from tunelab.models import lengths
from tunelab.models.bases import Base
from tunelab.study.space import Space
from tunelab.study.spec import StudySpec

__all__ = [
    "AUTO",
    "with_limits",
]

AUTO = "auto"


def with_limits(
    spec: StudySpec, base: Base | None, texts: Sequence[str], fingerprint: str
) -> tuple[StudySpec, TextLengths | None]:
    """The spec with a number in the place of every `auto`, and what the limits cut of the texts.

    `texts`: those that are trained on, of data with this fingerprint. A study that lies in the
    folder already keeps the limits that it was begun with, so that it can be finished. None where
    no method reads texts through a base. Raises ConfigError where two methods become one.
    """
    read = [m for m in spec.methods if "max_length" in m.settings]
    if base is None or not read:
        return spec, None
    counts = lengths.count_tokens(base, texts)
    on_disk = _limits_on_disk(spec.output_dir, fingerprint, base)
    limits = {
        m.label: on_disk.get(m.label) or lengths.automatic(counts, base, virtual_tokens(m))
        for m in read
        if m.settings["max_length"] == AUTO or _tries_auto(spec.tuning.spaces.get(m.label, {}))
    }
    methods = [
        replace(m, settings=_at(m.settings, limits[m.label])) if m.label in limits else m
        for m in spec.methods
    ]
    _refuse_twins(spec.methods, methods)
    spaces = {
        label: _space_at(space, limits[label]) if label in limits else space
        for label, space in spec.tuning.spaces.items()
    }
    kept = {limit for label, limit in limits.items() if label in on_disk}
    chosen = {limit for label, limit in limits.items() if label not in on_disk}
    tried = [v for space in spaces.values() if isinstance(v := space.get("max_length"), tuple)]
    asked = [*(m.settings.get("max_length") for m in methods), *itertools.chain(*tried)]
    used = {n for n in asked if isinstance(n, int)}
    known = lengths.limits_on(
        counts, len(texts), base, used | chosen | kept, chosen=chosen, kept=kept
    )
    tuning = replace(spec.tuning, spaces=spaces)
    return replace(spec, methods=tuple(methods), tuning=tuning), known


def _at(settings: SettingValues, limit: int) -> SettingValues:
    return {k: limit if (k, v) == ("max_length", AUTO) else v for k, v in settings.items()}


def _tries_auto(space: Space) -> bool:
    tried = space.get("max_length")
    return isinstance(tried, tuple) and AUTO in tried


def _space_at(space: Space, limit: int) -> Space:
    tried = space.get("max_length")
    if not isinstance(tried, tuple):
        return space
    return {**space, "max_length": tuple(dict.fromkeys(limit if v == AUTO else v for v in tried))}


def _limits_on_disk(folder: Path, fingerprint: str, base: Base) -> Mapping[str, int]:
    """The limit of each method, by label, of the study of these data and base in a folder."""
    known_study = study_folder.lying_there(folder)
    if known_study is None:
        return {}
    study, card = known_study
    try:
        if (card["fingerprint"], study["model"]) != (fingerprint, base.ref.name):
            return {}
        known = {m["label"]: m.get("max_length") for m in study["methods"]}
    except (LookupError, TypeError, AttributeError):
        return {}  # of another version: written anew
    return {label: n for label, n in known.items() if isinstance(n, int)}


def _refuse_twins(asked: Sequence[MethodSpec], methods: Sequence[MethodSpec]) -> None:
    """Raise ConfigError where `auto` is a limit that stands beside it."""
    first: dict[tuple[str, str], MethodSpec] = {}
    for before, m in zip(asked, methods, strict=True):
        other = first.setdefault((m.name, json.dumps(m.settings, sort_keys=True)), before)
        if other is not before:
            raise ConfigError(
                f"methods: {other.label} and {before.label} are the same, since max_length auto "
                f"is {m.settings['max_length']} tokens for these texts. Remove one, or change one."
            )
