"""What runs when: what is left, how many at a time, for about how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunelab.core.events import Event, event_to_json
from tunelab.core.values import MethodSpec, TrialSpec
from tunelab.methods import alike, why_alone
from tunelab.study.durations import A_COPY, Duration, estimate, makespan, seconds_to_import
from tunelab.study.estimate import side_by_side, stack_size
from tunelab.study.executors.cluster import threads_of
from tunelab.study.planning import Plan
from tunelab.study.progress import Progress, read_progress
from tunelab.study.spec import StudySpec

__all__ = [
    "OnStudyEvent",
    "OnUserEvent",
    "Replanned",
    "Schedule",
    "StudyEvent",
    "scheduled",
    "stacks_of",
    "tell_user",
]


# --- the schedule: what runs when -----------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What of a plan's progress is still to run, how many at a time, and for about how long.

    `durations` maps what is to run, in its order, to how long it is expected to take. `jobs` run at
    a time, each with so many `threads` (None: as its libraries choose); `why` says what decided
    that.
    `notes`: what is worth saying before it is run.
    """

    progress: Progress
    durations: Mapping[str, Duration]
    jobs: int = 1
    threads: int | None = None
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """What is meant."""
        return self.progress.plan

    @property
    def seconds(self) -> Mapping[str, float]:
        """Estimated seconds of what is to run."""
        return {i: d.seconds for i, d in self.durations.items()}

    @property
    def total_seconds(self) -> float:
        """Estimated seconds until everything that is still to run is done."""
        return self._total(d.seconds for d in self.durations.values())

    @property
    def total_range(self) -> tuple[float, float]:
        """The least and the most seconds that this may take, as far as can be told."""
        expected = self.durations.values()
        return self._total(d.least for d in expected), self._total(d.most for d in expected)

    def _total(self, seconds: Iterable[float]) -> float:
        return makespan(seconds, self.jobs) + seconds_to_import(self.progress.todo)


@dataclass(frozen=True, slots=True, eq=False)
class Replanned:
    """What is to run has changed: settings were chosen, or a method was dropped from the race."""

    schedule: Schedule


# What is said while a study runs: what its trials say, and this.
StudyEvent = Event | Replanned
OnStudyEvent = Callable[[StudyEvent], None]
# A user's own function: given an event as JSON, or {"event": "plan", "plan": Schedule}.
OnUserEvent = Callable[[Mapping[str, object]], None]


def tell_user(on_event: OnUserEvent) -> OnStudyEvent:
    """What tells a user's own function of events."""

    def hear(event: StudyEvent) -> None:
        if isinstance(event, Replanned):
            on_event({"event": "plan", "plan": event.schedule})
        else:
            on_event(event_to_json(event))

    return hear


def scheduled(plan: Plan) -> Schedule:
    """Read how far a plan is, and decide how the rest is run."""
    progress = read_progress(plan)
    stacks = stacks_of(plan, [t for t in progress.todo if t.trial_id not in progress.copies])
    jobs, threads, why = _stacks_at_a_time(plan, stacks)
    notes = (
        *plan.notes,
        *_not_stacked(plan.spec, progress.methods),
        *_not_kept(plan.spec, stacks),
        *progress.notes,
    )
    expected = _estimated(progress, jobs, threads)
    return Schedule(progress, expected, jobs, threads, why, notes)


def _stacks_at_a_time(
    plan: Plan, stacks: Sequence[Sequence[TrialSpec]]
) -> tuple[int, int | None, str]:
    """How many stacks run at a time, the threads of each, and why so many."""
    spec = plan.spec
    if spec.engine == "ray":
        takes = ",".join(f"{k}={v:g}" for k, v in spec.resources.items())
        many = f"{spec.jobs} at a time at most" if spec.jobs else "as many as it has room for"
        why = f"on the Ray cluster {spec.address}, {many}, each with {takes}"
        if spec.jobs is None:
            why += "; the time is that of one after the other on this machine"
        return spec.jobs or 1, threads_of(spec.resources), why
    return side_by_side(
        spec.jobs,
        [s[0] for s in stacks],
        plan.dataset,
        plan.base,
        max(map(len, stacks), default=1),
    )


def _estimated(progress: Progress, jobs: int, threads: int | None) -> dict[str, Duration]:
    """How long what is to run, by trial id; of what is not proposed yet, by its number."""
    plan, todo = progress.plan, progress.todo
    done = [r for r in progress.results.values() if r.status == "done"]
    to_run = [t for t in todo if t.trial_id not in progress.copies]
    expected = estimate(to_run, done, plan.dataset, plan.base, jobs=jobs, threads=threads)
    expected |= dict.fromkeys(progress.copies, A_COPY)
    for label, left in progress.proposals.items():
        # What is not proposed yet takes about as long as a trial of that method.
        own = [expected[t.trial_id] for t in todo if t.method.label == label]
        for i in range(left * len(plan.spec.tuning.seeds)):
            expected[f"try {i} of {label}"] = max(
                own, key=lambda d: d.seconds, default=Duration(0.0, 1.0)
            )
    return expected


def stacks_of(plan: Plan, trials: Sequence[TrialSpec]) -> list[tuple[TrialSpec, ...]]:
    """Put trials together that can be trained in one pass; the others are stacks of one."""
    stacks: list[list[TrialSpec]] = []
    last: dict[tuple[object, ...] | None, list[TrialSpec]] = {}
    for t in trials:
        size = stack_size(plan.spec.stack, t, plan.dataset)
        key = alike(t) if size > 1 and why_alone(t.method) is None else None
        stack = last.get(key)
        if key is None or stack is None or len(stack) >= size:
            stack = last[key] = []
            stacks.append(stack)
        stack.append(t)
    return [tuple(s) for s in stacks]


def _not_stacked(spec: StudySpec, methods: Sequence[MethodSpec]) -> list[str]:
    """Which methods train alone although a stack was asked for, and why."""
    if (spec.stack or 1) == 1:
        return []
    reasons = {m.label: why_alone(m) for m in methods}
    return [f"stack: {label} trains alone: {why}" for label, why in reasons.items() if why]


def _not_kept(spec: StudySpec, stacks: Sequence[Sequence[TrialSpec]]) -> list[str]:
    """Which trainings have no checkpoints although they were asked for, and why."""
    if spec.checkpoint_every is None:
        return []
    if spec.engine == "ray":
        return ["checkpoint_every: on a cluster, whose nodes share no disk, trials start anew"]
    if any(len(s) > 1 for s in stacks):
        return [
            "checkpoint_every: trials that are trained in one pass start anew where they are "
            "ended; with --stack off each is kept"
        ]
    return []
