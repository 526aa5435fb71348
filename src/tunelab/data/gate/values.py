"""What the data gate finds, as values, and what its checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.core.values import Dataset
from tunelab.core.words import short
from tunelab.data import duplicates

__all__ = [
    "EXAMPLES",
    "PARTS",
    "Bag",
    "Bools",
    "DatasetView",
    "Example",
    "Finding",
    "Floats",
    "Gate",
    "Ints",
    "RowRef",
    "bag_of",
    "gate_from_json",
    "gate_to_json",
    "line",
    "lines",
    "view_of",
]


Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
FindingLevel = Literal["fault", "warning", "note"]

EXAMPLES = 5
WORDS = 10_000_000  # words read by the label model and the language check, over all texts
PARTS = ("train", "validation", "test")


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowRef:
    """A row that a finding shows: its part, id, label name and text (cut at 200 characters)."""

    part: str
    id: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One case: the row, or the rows that belong together, and what is to be seen in it."""

    rows: tuple[RowRef, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in one place.

    `check` is a key of CHECKS; `where` a part ("train"), two parts ("train/test": rows of the
    second that stand in the first), a column, or "all". `count` rows are concerned, of `of`.
    `level`: a "fault" changes conclusions, a "warning" may, a "note" is good to know. `says` is
    the sentence for a reader, `advice` what to do. `numbers` has what the check counted besides.
    `test_ids` are the rows of the test part that are concerned.
    """

    check: str
    where: str
    level: FindingLevel
    count: int
    of: int
    says: str
    advice: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    test_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate found in one dataset (`fingerprint`), worst first; `seconds` by check.

    `notes` say what could not be checked, and why.
    """

    name: str
    fingerprint: str
    sizes: Mapping[str, int]
    findings: tuple[Finding, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def clear(self) -> str:
        """What was looked for where nothing was found: not labels, where they were not judged."""
        labels = "" if any("label" in n for n in self.notes) else "wrong labels, "
        return (
            f"The gate looked for leaks, repeats, {labels}broken texts and columns that give the "
            "label away, and found none."
        )

    def of(self, check: str, where: str | None = None) -> tuple[Finding, ...]:
        """The findings of a check, in one place or in all."""
        return tuple(f for f in self.findings if f.check == check and where in (None, f.where))


def gate_to_json(gate: Gate) -> dict[str, object]:
    """The gate as plain JSON values: the content of gate.json."""
    return asdict(gate)


def gate_from_json(value: Mapping[str, Any]) -> Gate:
    """Make a Gate of what `gate_to_json` gave (gate.json)."""
    findings = tuple(
        Finding(
            **{
                **f,
                "test_ids": tuple(f["test_ids"]),
                "examples": tuple(
                    Example(tuple(RowRef(**r) for r in e["rows"]), e["note"]) for e in f["examples"]
                ),
            }
        )
        for f in value["findings"]
    )
    plain = {k: value[k] for k in ("name", "fingerprint", "sizes", "seconds")}
    return Gate(**plain, findings=findings, notes=tuple(value["notes"]))


def lines(gate: Gate) -> list[str]:
    """The findings as sentences for a terminal, faults first; one line where there are none."""
    if not gate.findings:
        return ["nothing found by the data gate"]
    return [line(f) for f in gate.findings]


def line(finding: Finding) -> str:
    """A finding as one line: how bad, what, and what to do."""
    return f"{finding.level}: {finding.says}. {finding.advice}".strip()


# --- what checks see ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DatasetView:
    """A dataset as the checks see it: all n rows of all parts in one; costly views are kept."""

    label_names: tuple[str, ...]
    part: Ints  # (n,) index in PARTS
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: Ints
    columns: Mapping[str, tuple[Any, ...]]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def twins(self) -> duplicates.Twins:
        """Texts that are the same, nearly, or in one another."""
        return duplicates.find_twins(self.texts, self.labels)

    @cached_property
    def bag(self) -> Bag:
        """Words of each text, as a sparse matrix."""
        return bag_of(self.twins)

    @cached_property
    def words(self) -> Ints:
        """Words of each text, split at white space, (n,)."""
        return np.fromiter((len(t.split()) for t in self.texts), np.int64, len(self.texts))

    def rows(self, part: str) -> Ints:
        """Row numbers of a part."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def ref(self, i: int | np.int64) -> RowRef:
        """A row as a finding names it."""
        label = self.label_names[int(self.labels[i])]
        return RowRef(PARTS[int(self.part[i])], self.ids[i], label, short(self.texts[i]))

    def examples(
        self,
        rows: Iterable[Any],
        note: Callable[[int], str] = lambda _: "",
        most: int = EXAMPLES,
    ) -> tuple[Example, ...]:
        """The first rows, each as an example with a note."""
        return tuple(Example((self.ref(i),), note(int(i))) for i in islice(rows, most))

    def test_ids(self, rows: Ints) -> tuple[str, ...]:
        """Ids of those rows that lie in the test part."""
        return tuple(self.ids[i] for i in rows if self.part[i] == PARTS.index("test"))


def view_of(dataset: Dataset) -> DatasetView:
    """All parts of a data set end to end, as the checks see them."""
    splits = [dataset.parts[p] for p in PARTS]
    names = dict.fromkeys(c for s in splits for c in s.columns)
    return DatasetView(
        label_names=dataset.label_names,
        part=np.repeat(np.arange(len(PARTS)), [len(s) for s in splits]),
        ids=tuple(i for s in splits for i in s.ids),
        texts=tuple(t for s in splits for t in s.texts),
        labels=np.concatenate([s.labels for s in splits]),
        columns={
            c: tuple(v for s in splits for v in s.columns.get(c, (None,) * len(s))) for c in names
        },
    )


# --- words ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """Words of the distinct texts: `counts` sparse (groups, vocabulary), `number` of each word.

    `flat` are the words in order, `starts` (groups + 1,) where each text begins; cut at a number
    of words a text, so that all hold at most WORDS.
    """

    number: Mapping[str, int]
    flat: NDArray[np.int32]
    starts: Ints

    def matrix(self, flat: NDArray[Any], width: int) -> Any:
        """Counts of the numbers of `flat` in each text: sparse (groups, width)."""
        from scipy.sparse import csr_array

        # A copy: what adds up duplicates moves words within the arrays that it was given.
        counts = csr_array(
            (np.ones(len(flat), dtype=np.float32), flat, self.starts),
            shape=(len(self.starts) - 1, width),
            copy=True,
        )
        counts.sum_duplicates()
        return counts


def bag_of(twins: duplicates.Twins) -> Bag:
    """The words of the distinct texts, by number; of a long text in a large dataset the first."""
    number: dict[str, int] = {}
    most = max(30, WORDS // max(1, len(twins.texts)))
    pieces = []
    sizes = np.zeros(len(twins.texts) + 1, dtype=np.int64)
    for i, text in enumerate(twins.texts):
        words = text.split()[:most]
        pieces.append(
            np.fromiter((number.setdefault(w, len(number)) for w in words), np.int32, len(words))
        )
        sizes[i + 1] = len(words)
    flat = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Bag(number, flat, sizes.cumsum())
