"""Looks at a growing study, as its folder keeps them (looks.json)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tunelab.analysis import summary
from tunelab.core import study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord
from tunelab.core.words import counted
from tunelab.stats import least_seeds
from tunelab.stats.looks import Looks, declare, looked, looks_from_json, looks_to_json
from tunelab.study import resolve
from tunelab.study.spec import StudySpec

__all__ = [
    "declare_looks",
    "extended",
    "forget_looks_at_other_data",
    "looks_to_come",
    "note_look",
    "rounds_of",
]


MAX_SEEDS, STEP = 20, 2  # until decided, where nothing else is said


def declare_looks(record: StudyRecord, max_seeds: int | None, step: int | None) -> Looks:
    """Declare how often a study may be looked at; what was declared before stays.

    The report that there is was the first look. Raises ConfigError where another number of seeds
    was declared, or the study has as many already.
    """
    looks = _declared(record, max_seeds, step)
    if record.looks is None:
        _write(record, looks)
    return looks


def looks_to_come(directory: Path, max_seeds: int | None, step: int | None) -> str:
    """With how many seeds a study would be looked at, in a sentence; raises as `declare_looks`."""
    record = study_folder.read_study(directory)
    looks = _declared(record, max_seeds, step)
    have = len(record.settings["seeds"])
    if have >= looks.max_seeds:
        return f"{counted(have, 'seed')}: all that its looks were declared with are used"
    first = min(looks.max_seeds, max(have + looks.step, least_seeds()))
    more = [*range(first, looks.max_seeds, looks.step), looks.max_seeds]
    return (
        f"{counted(have, 'seed')}; until the best is told from all others it would be looked at "
        f"with {', '.join(map(str, more))}"
    )


def _declared(record: StudyRecord, max_seeds: int | None, step: int | None) -> Looks:
    have, directory = len(record.settings["seeds"]), record.directory
    looks = record.parsed("looks", looks_from_json)
    if looks is not None:
        if max_seeds not in (None, looks.max_seeds):
            raise ConfigError(
                f"{directory}: its looks were declared with at most {looks.max_seeds} seeds "
                f"(looks.json), found --max-seeds {max_seeds}. That cannot be changed once a look "
                f"was taken: leave it out, or give {looks.max_seeds}."
            )
        return looks if step is None else replace(looks, step=step)
    most = MAX_SEEDS if max_seeds is None else max_seeds
    if most <= have:
        raise ConfigError(
            f"{directory}: has {counted(have, 'seed')}, expected --max-seeds above that, found "
            f"{most}. Give --max-seeds {have + 1} or more."
        )
    return declare(most, STEP if step is None else step, max(1, _most_seeds_done(record)))


def note_look(record: StudyRecord) -> None:
    """Write down that verdicts are now given with the seeds that are done, if looks are counted."""
    before = record.parsed("looks", looks_from_json)
    if before is None:
        return
    after = looked(before, _most_seeds_done(record))
    if after != before:
        _write(record, after)


def extended(directory: Path, total: int, trust_remote_code: bool = False) -> StudySpec:
    """A study's spec with `total` seeds: those it has, and then the smallest others.

    A model's own code may run only where this call allows it, whatever the study was run with.

    Raises ConfigError where it has as many already, or more than its looks were declared with;
    ArtifactError where there is no study.
    """
    record = study_folder.read_study(directory)
    have = [int(s) for s in record.settings["seeds"]]
    looks = record.parsed("looks", looks_from_json)
    if looks is not None and total > looks.max_seeds:
        raise ConfigError(
            f"{directory}: its looks were declared with at most {looks.max_seeds} seeds "
            "(looks.json), found "
            f"{total}. All that they may be wrong in is spent by then: compare anew, in another "
            "--output-dir."
        )
    if total <= len(have):
        more = max(total, 1)
        raise ConfigError(
            f"{directory}: has {counted(len(have), 'seed')} ({', '.join(map(str, have))}), "
            f"expected more than that in all, found {total}. For {more} more: --seeds "
            f"{len(have) + more} (in Python seeds={len(have) + more})."
        )
    others = (s for s in range(total + len(have)) if s not in have)
    seeds = [*have, *itertools.islice(others, total - len(have))]
    flags: dict[str, object] = {"seeds": seeds, "output_dir": str(directory)}
    flags |= {"trust_remote_code": True} if trust_remote_code else {}
    return resolve.resolve_study(directory / "study.yaml", flags)


def rounds_of(
    directory: Path,
    look: Callable[[Path], object],
    total: int | None = None,
    *,
    until: str | None = None,
    max_seeds: int | None = None,
    step: int | None = None,
    trust_remote_code: bool = False,
) -> Iterator[StudySpec]:
    """What to run, one round after the other, to extend a study; each is run before the next.

    One round with `total` seeds; or, `until="decided"`, as many as it takes. `look` writes what is
    said of a folder: the first look says it anew, at a level of its own.
    Raises ConfigError where what is given does not go together, and as `declare_looks` does.
    """
    if until not in (None, "decided"):
        raise ConfigError(f"{directory}: until: expected 'decided', found {until!r}.")
    if (total is None) == (until is None):
        raise ConfigError(
            f"{directory}: expected so many seeds (--seeds N) or until decided (--until decided) "
            f"to extend it, found {'neither' if total is None else 'both'}. Give one of them."
        )
    if until is None and (max_seeds, step) != (None, None):
        raise ConfigError(f"{directory}: --max-seeds and --step go with --until decided.")
    if total is not None:
        return iter([extended(directory, total, trust_remote_code)])
    looks = declare_looks(study_folder.read_study(directory), max_seeds, step)
    look(directory)
    return _until_decided(directory, looks, trust_remote_code)


def _until_decided(directory: Path, looks: Looks, trust: bool) -> Iterator[StudySpec]:
    """Ends where the best is told from all others, where there are as many seeds as were declared,
    and where a trial failed.
    """
    while True:
        record = study_folder.read_study(directory)
        have = len(record.settings["seeds"])
        if have >= looks.max_seeds or record.failed:
            return
        if not summary.undecided_with_best(summary.summarise(record)):
            return
        total = min(looks.max_seeds, max(have + looks.step, least_seeds()))
        yield extended(directory, total, trust)


def _write(record: StudyRecord, looks: Looks) -> None:
    value = {**looks_to_json(looks), "fingerprint": record.data["fingerprint"]}
    study_folder.write_extra(record.directory, "looks", value)


def _most_seeds_done(record: StudyRecord) -> int:
    """Seeds of the method that has most of them."""
    done = [r.spec.method.label for r in record.done]
    return max(map(done.count, set(done)), default=0)


def forget_looks_at_other_data(folder: Path, fingerprint: str) -> None:
    """Remove looks.json where what was looked at is not what the study is of now."""
    stored = study_folder.read_extra(folder, "looks")
    if stored is None:
        return
    study_folder.parse_extra(folder, "looks", stored, looks_from_json)  # raises where it is damaged
    if stored.get("fingerprint") != fingerprint:
        study_folder.remove_extra(folder, "looks")
