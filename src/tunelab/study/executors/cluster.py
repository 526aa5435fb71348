"""Trials on a Ray cluster: slots on its nodes, and what is done when one of them is lost.

Ray places the slots (`executors.slot`) and carries bytes; the rest is ours. A stack whose slot or
node is lost is begun again elsewhere, three times at most; Ray itself repeats nothing. Files come
back as bytes, and only this process writes into the study. Which nodes live is asked for and not
waited for: with a cut link, Ray is silent for minutes after it has given a node up.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tunelab.core import study_folder
from tunelab.core.details import BaseRef
from tunelab.core.errors import ConfigError, TrialError
from tunelab.core.events import Note, OnEvent
from tunelab.core.sent import SentKind, key_of_file
from tunelab.core.values import TrialResult, TrialSpec
from tunelab.core.words import counted
from tunelab.data.sent import key_of_rows, rows_to_send
from tunelab.models import bases
from tunelab.study.executors.connection import connected
from tunelab.study.executors.executor import Executor
from tunelab.study.executors.process import keep_as_failed
from tunelab.study.executors.slot import (
    Content,
    Installed,
    SentStack,
    Slot,
    StackEnded,
    installed,
    read_content,
    write_content,
)
from tunelab.study.spec import StudySpec

__all__ = ["on_cluster", "threads_of"]

_ATTEMPTS = 3  # that a stack is begun at most
# Seconds: without a sign from a slot that runs something, which gives one every two; between looks
# at the nodes; without any node that could run anything.
_SILENCE, _BETWEEN_LOOKS, _WITHOUT_NODES = 60.0, 5.0, 120.0


def threads_of(resources: Mapping[str, float]) -> int:
    """Threads of a trial that takes these resources."""
    return max(1, int(resources["cpu"]))


@contextmanager
def on_cluster(spec: StudySpec) -> Iterator[Executor]:
    """What runs a study's trials on the cluster at its address, as long as this is open.

    `spec.jobs` stacks at a time at most, else as many as have room. Raises ConfigError where there
    is no such cluster.
    """
    with connected(spec.address) as ray:
        slots = _Slots(ray, spec)
        try:
            yield partial(_run_on_slots, slots)
        finally:
            slots.close(slots.open)


@dataclass(slots=True, eq=False)
class _Attempt:
    """A stack that is to run, for the `number`th time."""

    specs: tuple[TrialSpec, ...]
    number: int = 1


@dataclass(slots=True, eq=False)
class _OpenSlot:
    """A slot as it is seen from here. `answer`: what it was asked last and has not answered.

    `lacks`: which of the bases that it was `asked_for` are not on its machine, by their SHA-256.
    """

    actor: Any
    node: str
    answer: Any
    asked_for: tuple[BaseRef, ...]
    heard: float = field(default_factory=time.monotonic)
    installed: Installed | None = None
    lacks: tuple[str, ...] = ()
    sent: set[str] = field(default_factory=set)
    attempt: _Attempt | None = None

    @property
    def name(self) -> str:
        """Its machine's."""
        return self.installed.machine if self.installed else f"node {self.node[:8]}"


@dataclass(slots=True, eq=False)
class _Round:
    """What one call is to run: the stacks that wait, and results that were not yielded yet."""

    waiting: deque[_Attempt]
    study: Path
    metric: str
    on_event: OnEvent
    results: deque[TrialResult] = field(default_factory=deque)

    @property
    def refs(self) -> tuple[BaseRef, ...]:
        """The bases of what waits."""
        specs = (spec for attempt in self.waiting for spec in attempt.specs)
        return tuple(dict.fromkeys(spec.base for spec in specs if spec.base))


def _run_on_slots(
    slots: _Slots,
    stacks: Sequence[Sequence[TrialSpec]],
    study: Path,
    metric: str,
    on_event: OnEvent,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> Iterator[TrialResult]:
    """See `executors.Executor`; how many at a time, and their threads, the cluster decides."""
    del jobs, threads
    now = _Round(deque(_Attempt(tuple(s)) for s in stacks), study, metric, on_event)
    try:
        while now.waiting or slots.running:
            slots.fill(now)
            slots.hear(now)
            while now.results:
                yield now.results.popleft()
    finally:
        slots.close([p for p in slots.open if p.attempt])  # nobody waits for these any more
        study_folder.sweep(study)


class _Slots:
    """The slots of a study. Those that are idle are kept from one round to the next."""

    def __init__(self, ray: Any, spec: StudySpec) -> None:
        self._ray = ray
        self._spec = spec
        self._here = installed()
        self.open: list[_OpenSlot] = []
        self._room: dict[str, int] = {}
        self._looked = -math.inf
        self._had_room = -math.inf  # when a node last had room for a trial
        self._refused: dict[str, str] = {}  # nodes, and why
        self._failed: Counter[str] = Counter()  # slots that never answered, by node
        self._put: dict[str, object] = {}

    @property
    def running(self) -> bool:
        """Whether anything runs."""
        return any(p.attempt for p in self.open)

    # --- slots that are opened ----------------------------------------------------------------

    def fill(self, now: _Round) -> None:
        """Give every idle slot a stack, and open slots for the others where there is room."""
        self._look_at_nodes(now)
        for place in self.open:
            if now.waiting and place.installed and not place.attempt:
                self._begin(place, now.waiting.popleft(), now)
        starting = sum(not p.installed for p in self.open)
        limit = self._spec.jobs or math.inf
        while len(now.waiting) > starting and len(self.open) < limit:
            on = Counter(p.node for p in self.open)
            free = {node: room - on[node] for node, room in self._room.items()}
            node = max(free, key=lambda n: free[n], default=None)
            if node is None or free[node] < 1:
                break
            self._open_on(node, now)
            starting += 1
        if now.waiting and not self.open:
            self._without_room()

    def _open_on(self, node: str, now: _Round) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        takes = dict(self._spec.resources)
        options = {
            "num_cpus": takes.pop("cpu"),
            "num_gpus": takes.pop("gpu", 0),
            "memory": takes.pop("memory", None),
            "resources": takes,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        methods = dict.fromkeys(s.method.name for a in now.waiting for s in a.specs)
        actor = self._ray.remote(Slot).options(**options)
        actor = actor.remote(tuple(methods), threads_of(self._spec.resources))
        self.open.append(_OpenSlot(actor, node, actor.about.remote(now.refs), now.refs))

    def _without_room(self) -> None:
        """Raise where nothing can run; wait a while where a node may come back."""
        if self._refused:
            why = "; ".join(dict.fromkeys(self._refused.values()))
            raise ConfigError(f"engine: no node of the cluster can run a trial as this one: {why}.")
        had_any = self._had_room > -math.inf
        if time.monotonic() - self._had_room < _WITHOUT_NODES:
            time.sleep(1)
            return
        wanted = ",".join(f"{k}={v:g}" for k, v in self._spec.resources.items())
        if had_any:
            raise TrialError(
                f"The cluster has had no node with {wanted} for {_WITHOUT_NODES:.0f} s. What is "
                "done is kept: run the command again when it is back."
            )
        nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
        has = "; ".join(", ".join(f"{k}={n[k]:g}" for k in _shown(n)) for n in nodes) or "no node"
        raise ConfigError(f"resources: no node of the cluster has {wanted}. It has: {has}.")

    # --- what they are given ------------------------------------------------------------------

    def _begin(self, place: _OpenSlot, attempt: _Attempt, now: _Round) -> None:
        """Send a stack to a slot, with what the slot has not been sent before."""
        read = [d for s in attempt.specs for d in (s.data, *s.test_on)]
        for key, spec in {key_of_rows(d): d for d in read}.items():
            self._send(place, "rows", key, partial(rows_to_send, spec))
        for path in {d.corrections for d in read if d.corrections}:
            self._send(place, "files", key_of_file(path), Path(path).expanduser().read_bytes)
        for ref in dict.fromkeys(s.base for s in attempt.specs if s.base):
            if ref.sha256 in place.lacks or ref not in place.asked_for:
                self._send(place, "bases", ref.sha256, partial(_files_of_base, ref))
        beside = sum(p.node == place.node for p in self.open)
        needed = _files_needed(now.study, attempt.specs)
        place.actor.begin.remote(SentStack(attempt.specs, now.metric, needed, beside))
        place.attempt = attempt
        self._ask(place)

    def _send(
        self, place: _OpenSlot, kind: SentKind, key: str, read: Callable[[], bytes | Content]
    ) -> None:
        if key in place.sent:
            return
        if key not in self._put:
            self._put[key] = self._ray.put(read())
        place.actor.take.remote(kind, key, self._put[key])
        place.sent.add(key)

    def _ask(self, place: _OpenSlot) -> None:
        place.heard = time.monotonic()
        place.answer = place.actor.listen.remote()

    # --- what they say ------------------------------------------------------------------------

    def hear(self, now: _Round) -> None:
        """Wait a moment for the next answer, and do what follows from it."""
        asked = {p.answer: p for p in self.open if p.answer is not None}
        if not asked:
            return
        answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=1.0)
        for answer in answered:
            place = asked[answer]
            try:
                said = self._ray.get(answer, timeout=_SILENCE)
            except self._ray.exceptions.RayError as e:
                self._lose(place, _last_words(e), now)
                continue
            place.answer = None
            if place.installed is None:
                about, lacks = said
                self._welcome(place, about, lacks, now)
                continue
            for event in said.events:
                now.on_event(event)
            if said.ended is None:
                self._ask(place)
            else:
                self._take_back(place, said.ended, now)

    def _welcome(
        self, place: _OpenSlot, about: Installed, lacks: tuple[str, ...], now: _Round
    ) -> None:
        """A slot has started: it may run trials where results would be those of this machine."""
        unlike = self._here.differences(about)
        if unlike:
            self._refuse(place.node, f"{about.machine} has {', '.join(unlike)}", now)
            return
        others = {p.installed.hardware for p in self.open if p.installed}
        place.installed, place.lacks = about, lacks
        if others and about.hardware not in others:
            h = about.hardware
            now.on_event(
                Note(
                    f"{about.machine} is another machine than those before ({h.processor}, "
                    f"{counted(h.cores or 0, 'core')}): costs compare only within one kind"
                )
            )

    def _take_back(self, place: _OpenSlot, ended: StackEnded, now: _Round) -> None:
        """Write what a stack left into the study."""
        if ended.fault:
            self._lose(place, ended.fault, now)
            return
        place.attempt = None
        for result in ended.results:
            trial_id = result.spec.trial_id
            content = (ended.files or {}).get(trial_id)
            if content is not None:
                with study_folder.new_trial(now.study, trial_id) as folder:
                    write_content(folder, content)
            now.results.append(result)

    # --- slots and nodes that are lost --------------------------------------------------------

    def _look_at_nodes(self, now: _Round) -> None:
        """Which nodes live, and how many slots each has room for; what was lost is begun again."""
        moment = time.monotonic()
        if moment - self._looked < _BETWEEN_LOOKS and self.open:
            return
        self._looked = moment
        alive = {n["NodeID"]: n["Resources"] for n in self._ray.nodes() if n["Alive"]}
        for place in list(self.open):
            if place not in self.open:  # its node was refused meanwhile
                continue
            if place.node not in alive:
                self._lose(place, "its node is gone", now)
            elif place.attempt and moment - place.heard > _SILENCE:
                self._lose(place, f"it has been silent for {_SILENCE:.0f} s", now)
        takes = self._spec.resources
        self._room = {
            node: room
            for node, has in alive.items()
            if node not in self._refused and (room := _room_of(has, takes)) > 0
        }
        if self._room:
            self._had_room = moment

    def _lose(self, place: _OpenSlot, why: str, now: _Round) -> None:
        """A slot is lost: what it ran is run again, a trial by itself, or has failed for good."""
        self.open.remove(place)
        self._kill(place)
        if place.installed is None:
            self._failed[place.node] += 1
            if self._failed[place.node] >= _ATTEMPTS:
                self._refuse(place.node, f"on {place.name} no slot starts ({why})", now)
        attempt = place.attempt
        if attempt is None:
            return
        for spec in attempt.specs:
            said = f"{spec.method.label} seed {spec.seed}: {place.name} was lost ({why})"
            if attempt.number < _ATTEMPTS:
                again = f"begun again, for the {_ORDINALS[attempt.number]} time of {_ATTEMPTS}"
                now.on_event(Note(f"{said}; {again}"))
                now.waiting.appendleft(_Attempt((spec,), attempt.number + 1))
            else:
                text = (
                    f"It was begun {_ATTEMPTS} times; each time, what ran it was lost, last: {why}."
                )
                now.results.append(keep_as_failed(spec, now.study, text))

    def _refuse(self, node: str, why: str, now: _Round) -> None:
        """Run nothing on a node any more."""
        if node not in self._refused:
            now.on_event(Note(f"nothing is run on a node of the cluster: {why}"))
        self._refused[node] = why
        self._room.pop(node, None)
        self.close([p for p in self.open if p.node == node and not p.installed])

    def _kill(self, place: _OpenSlot) -> None:
        with suppress(Exception):  # it may be gone, and its node too
            self._ray.kill(place.actor, no_restart=True)

    def close(self, places: Sequence[_OpenSlot]) -> None:
        """End slots and what they run; they have a moment to remove what they wrote."""
        if not places:
            return
        places = list(places)
        self.open = [p for p in self.open if p not in places]
        with suppress(Exception):
            self._ray.wait([p.actor.close.remote() for p in places], num_returns=len(places),
                           timeout=5.0)  # fmt: skip
        for place in places:
            self._kill(place)


_ORDINALS = {1: "second", 2: "third"}


def _shown(resources: Mapping[str, float]) -> list[str]:
    """Of a node's resources, those that a trial may take."""
    return [k for k in resources if not k.startswith("node:") and "object_store" not in k]


def _room_of(has: Mapping[str, float], takes: Mapping[str, float]) -> int:
    """How many trials a node has room for."""
    names = {"cpu": "CPU", "gpu": "GPU"}
    return min(int(has.get(names.get(k, k), 0.0) / v + 1e-9) for k, v in takes.items())


def _files_needed(study: Path, specs: Sequence[TrialSpec]) -> Content:
    """What trials need of a study's folder: its behaviour tests, and trials that are done and are
    only to be scored on other data.
    """
    needed: dict[str, bytes] = {}
    behaviour = study / "behaviour.json"
    if behaviour.is_file():
        needed[behaviour.name] = behaviour.read_bytes()
    for spec in specs:
        before = study_folder.read_result(study, spec.trial_id)
        if before is not None and before.status == "done":
            kept = read_content(study_folder.trial_dir(study, spec.trial_id))
            needed |= {f"trials/{spec.trial_id}/{name}": c for name, c in kept.items()}
    return needed


def _files_of_base(ref: BaseRef) -> Content:
    base = bases.resolve_exactly(ref, Path("this study"), bool(ref.code_sha256))
    return {name: path.read_bytes() for name, path in bases.files_to_send(base).items()}


def _last_words(error: Exception) -> str:
    """Why a slot is lost: what it raised, where that is in Ray's many lines; else it is gone."""
    lines = [line.strip() for line in str(error).splitlines()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return raised[-1][:200] if raised else "its process or its node is gone"
