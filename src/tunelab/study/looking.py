"""Looks at a growing study, as its folder keeps them (looks.json)."""

from __future__ import annotations

from pathlib import Path

from tunelab.core import study_folder
from tunelab.core.errors import ConfigError
from tunelab.core.study_folder import StudyRecord
from tunelab.stats import least_seeds
from tunelab.stats.looks import Looks, declare, looked, looks_from_json, looks_to_json

__all__ = [
    "declare_looks",
    "forget_looks_at_other_data",
    "looks_to_come",
    "note_look",
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


def looks_to_come(record: StudyRecord, max_seeds: int | None, step: int | None) -> str:
    """With how many seeds a study would be looked at, in a sentence; raises as `declare_looks`."""
    looks = _declared(record, max_seeds, step)
    have = len(record.settings["seeds"])
    first = min(looks.max_seeds, max(have + looks.step, least_seeds()))
    more = [*range(first, looks.max_seeds, looks.step), looks.max_seeds]
    return (
        f"{have} seeds; until the best is told from all others it would be looked at with "
        f"{', '.join(map(str, more))}"
    )


def _declared(record: StudyRecord, max_seeds: int | None, step: int | None) -> Looks:
    have, directory = len(record.settings["seeds"]), record.directory
    if record.looks is not None:
        looks = looks_from_json(record.looks)
        if max_seeds not in (None, looks.max_seeds):
            raise ConfigError(
                f"{directory}: its looks were declared with at most {looks.max_seeds} seeds "
                f"(looks.json), found --max-seeds {max_seeds}. That cannot be changed once a look "
                f"was taken: leave it out, or give {looks.max_seeds}."
            )
        return looks
    most = MAX_SEEDS if max_seeds is None else max_seeds
    if most <= have:
        raise ConfigError(
            f"{directory}: has {have} seeds, expected --max-seeds above that, found {most}. Give "
            f"--max-seeds {have + 1} or more."
        )
    return declare(most, STEP if step is None else step, max(1, _most_seeds_done(record)))


def note_look(record: StudyRecord) -> None:
    """Write down that verdicts are now given with the seeds that are done, if looks are counted."""
    if record.looks is None:
        return
    before = looks_from_json(record.looks)
    after = looked(before, _most_seeds_done(record))
    if after != before:
        _write(record, after)


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
    if stored is not None and stored.get("fingerprint") != fingerprint:
        study_folder.remove_extra(folder, "looks")
