"""What a trial's result says beside its scores: how it was trained, and where it comes from.

These values lie in result.json flat, in the order of their fields, and without what is None. What
is read back is what was written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

__all__ = [
    "BaseRef",
    "Details",
    "DomainScores",
    "FrozenLayers",
    "Hardware",
    "Provenance",
    "Pruned",
    "Scoring",
    "Seeds",
    "Trained",
    "Transfer",
]


class ReadByKey(Mapping[str, object]):
    """Reads by key too, as it lies on disk: for the scripts of users. Ours read fields."""

    __slots__ = ()

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """As it lies on disk."""

    def __getitem__(self, key: str) -> object:
        return self.to_json()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_json())

    def __len__(self) -> int:
        return len(self.to_json())


T = TypeVar("T")


def _known(kind: Callable[..., T], value: Mapping[str, Any]) -> T:
    """A dataclass from what lies on disk, without the keys that a later version wrote."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in value.items() if k in names})


def _without_none(value: Any, *nulls: str) -> dict[str, object]:
    """A dataclass's fields in order; of those that are None, only `nulls`."""
    by_name = {f.name: getattr(value, f.name) for f in fields(value)}
    return {k: v for k, v in by_name.items() if v is not None or k in nulls}


# --- how it was trained, and what it gave ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrozenLayers:
    """The `layers` lowest layers, `of` so many, that are frozen below all that learns.

    `dropout`: whether theirs is on. `computed` "once" or "each step", and `why` not once; where
    once: whether another trial had kept them (`from_cache`), what computing took and what it keeps.
    """

    layers: int
    of: int
    dropout: bool
    computed: str
    why: str | None
    from_cache: bool | None = None
    seconds: float | None = None
    bytes: int | None = None

    def to_json(self) -> dict[str, object]:
        """As it lies on disk; `why` stands there also where there is no reason."""
        return _without_none(self, "why")


@dataclass(frozen=True, slots=True)
class Trained:
    """How a transformer was trained; all None for what is none.

    `padding`: the share of computed tokens. `stack`: trained in one pass with so many, or why not.
    `engine`, `precision` and `kernels` computed it; `rounding`: how far logits in that precision
    were from exact float32 before training, as a share. `quantization`: what quantised the base.
    """

    best_epoch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    padding: float | None = None
    stack: int | None = None
    stack_reason: str | None = None
    engine: str | None = None
    engine_reason: str | None = None
    precision: str | None = None
    precision_reason: str | None = None
    rounding: float | None = None
    kernels: str | None = None
    frozen_layers: FrozenLayers | None = None
    device: str | None = None
    head_modules: Sequence[str] | None = None
    weight_bytes: int | None = None
    quantization: str | None = None

    def to_json(self) -> dict[str, object]:
        """As it lies on disk; an engine stands with its reason, also where there is none."""
        out = _without_none(self, *(["engine_reason"] if self.engine else []))
        if self.frozen_layers is not None:
            out["frozen_layers"] = self.frozen_layers.to_json()
        return out


@dataclass(frozen=True, slots=True)
class Scoring:
    """What measured texts/s and latency: the `engine`, `why` it is the plain one, whether adapters
    were `merged` before, and in which `precision`.
    """

    engine: str
    why: str | None
    merged: bool
    precision: str

    def to_json(self) -> dict[str, object]:
        """As it lies on disk."""
        return {
            "engine": self.engine,
            "why": self.why,
            "merged": self.merged,
            "in": self.precision,
        }


@dataclass(frozen=True, slots=True)
class DomainScores:
    """Scores on the `rows` of one domain."""

    rows: int
    scores: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Scores on other data than the trial's own, read from `source`, and by its domains.

    A score that is None has its reason in `reasons`.
    """

    source: str
    rows: int
    fingerprint: str
    scores: Mapping[str, float | None]
    reasons: Mapping[str, str]
    domains: Mapping[str, DomainScores]


@dataclass(frozen=True, slots=True)
class Pruned:
    """A try that was ended after an `epoch` whose score, `value`, was `below` that of others."""

    epoch: int
    value: float
    below: float


@dataclass(frozen=True, slots=True, eq=False)
class Details(ReadByKey):
    """What of a result is not one number.

    `own`: what the method says of itself alone, by name (an SVM its C, AdaLoRA its ranks).
    `from_cache`: whether an SVM's vectors were there already. By part, "validation" and "test":
    `per_class` scores by class, `confusion` counts, (n_classes, n_classes), true by predicted.
    `transfer`: scores on other data, by its name. `training_rows`: how many rows taught it, where
    that is not the training part. `notes`: what was decided about the base, as that
    a head it brings was kept.
    """

    trained: Trained = Trained()
    own: Mapping[str, object] = field(default_factory=dict)
    from_cache: bool | None = None
    pruned: Pruned | None = None
    traceback: str | None = None
    per_class: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None
    confusion: Mapping[str, Sequence[Sequence[int]]] | None = None
    transfer: Mapping[str, Transfer] = field(default_factory=dict)
    scoring: Scoring | None = None
    notes: Sequence[str] = ()
    training_rows: int | None = None

    def to_json(self) -> dict[str, object]:
        """As it lies on disk: flat."""
        known = {
            "from_cache": self.from_cache,
            "pruned": self.pruned and asdict(self.pruned),
            "traceback": self.traceback,
            "per_class": self.per_class,
            "confusion": self.confusion,
            "transfer": {k: asdict(t) for k, t in self.transfer.items()} or None,
            "scoring": self.scoring and self.scoring.to_json(),
            "notes": list(self.notes) or None,
            "training_rows": self.training_rows,
        }
        known = {k: v for k, v in known.items() if v is not None}
        return {**self.trained.to_json(), **self.own, **known}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Details:
        """What `to_json` wrote; keys that it does not know are the method's own."""
        left = dict(value)
        names = {f.name for f in fields(Trained)}
        trained = {k: left.pop(k) for k in list(left) if k in names}
        if trained.get("frozen_layers"):
            trained["frozen_layers"] = _known(FrozenLayers, trained["frozen_layers"])
        pruned, scoring = left.pop("pruned", None), left.pop("scoring", None)
        return cls(
            trained=Trained(**trained),
            from_cache=left.pop("from_cache", None),
            pruned=_known(Pruned, pruned) if pruned else None,
            traceback=left.pop("traceback", None),
            per_class=left.pop("per_class", None),
            confusion=left.pop("confusion", None),
            transfer={k: _transfer(t) for k, t in (left.pop("transfer", None) or {}).items()},
            scoring=_scoring(scoring) if scoring else None,
            notes=tuple(left.pop("notes", None) or ()),
            training_rows=left.pop("training_rows", None),
            own=left,
        )


def _transfer(value: Mapping[str, Any]) -> Transfer:
    domains = {k: _known(DomainScores, d) for k, d in value["domains"].items()}
    return _known(Transfer, {**value, "domains": domains})


def _scoring(value: Mapping[str, Any]) -> Scoring:
    return Scoring(value["engine"], value["why"], value["merged"], value["in"])


# --- where it comes from --------------------------------------------------------------------


# The bundled base under the name that it has on the hub.
_HUB_NAMES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}


@dataclass(frozen=True, slots=True)
class BaseRef:
    """A pretrained base model: its name as the user gave it and the SHA-256 of its weights.

    `code_sha256`: of the model's own Python code where the user allowed it to run; otherwise None.
    """

    name: str
    sha256: str
    code_sha256: str | None = None

    @property
    def elsewhere(self) -> tuple[str, str | None]:
        """The name and revision by which other tools, on other machines too, find these weights.

        Of a local folder, that folder: nobody knows another name of it.
        """
        name = _HUB_NAMES.get(self.name, self.name)
        repo, at, revision = name.partition("@")
        return (repo, revision) if at and not name.startswith(("/", "~", ".")) else (name, None)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The named seeds of a trial, all derived from its one seed: initialisation of what is new,
    order of the rows, dropout masks.
    """

    init: int
    order: int
    dropout: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine: its processor, the cores that may be used, memory and operating system."""

    processor: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    system: str | None = None

    def to_json(self) -> dict[str, object]:
        """As it lies on disk, where memory that the system does not tell is null."""
        return _without_none(self, *(["memory_bytes"] if self.system else []))


@dataclass(frozen=True, slots=True, eq=False)
class Provenance(ReadByKey):
    """Where a result comes from; all None where its process died.

    `jobs`: so many ran at a time; `measured_alone` where that is one. `stack`: trained in one pass
    with so many, so that times are a share and peak memory is of all. `dataset`: fingerprint of its
    content. `started`: an ISO time; `seconds` from then to its end. `same_run_as`: the id of the
    trial that it is a copy of, where nothing depends on the seed.
    """

    tunelab: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Hardware = Hardware()
    threads: int | None = None
    jobs: int | None = None
    measured_alone: bool | None = None
    stack: int | None = None
    dataset: str | None = None
    revision: str | None = None
    base: BaseRef | None = None
    seeds: Seeds | None = None
    started: str | None = None
    seconds: float | None = None
    same_run_as: str | None = None

    def to_json(self) -> dict[str, object]:
        """As it lies on disk; what can be missing by its nature stands there as null."""
        nulls = ("threads", "revision", "base") if self.started else ()
        out = _without_none(self, *nulls)
        for name, kept in (("base", self.base), ("seeds", self.seeds)):
            if kept is not None:
                out[name] = asdict(kept)
        out["hardware"] = self.hardware.to_json()
        return {k: v for k, v in out.items() if v != {}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Provenance:
        """What `to_json` wrote; keys that it does not know are left out."""
        names = {f.name for f in fields(cls)}
        given = {k: v for k, v in value.items() if k in names}
        if given.get("hardware"):
            given["hardware"] = _known(Hardware, given["hardware"])
        if given.get("base"):
            given["base"] = _known(BaseRef, given["base"])
        if given.get("seeds"):
            given["seeds"] = _known(Seeds, given["seeds"])
        return cls(**given)
