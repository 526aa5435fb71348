"""The data gate: what is wrong with labelled texts, before anything is trained on them.

`inspect(dataset)` runs the rows of CHECKS and gives a `Gate` of findings: counts, examples, advice;
`against(dataset, other)` looks for one dataset's held-out rows in the training rows of another;
`effects(gate, runs)` says what the affected test rows do to the conclusion, once predictions exist.

100,000 reviews take under a minute on one core, and memory is bounded: texts are read into sketches
(`duplicates`), a bag of at most WORDS words, and nothing else. May import: numpy, scipy and ftfy,
scikit-learn and cleanlab (inside functions), types, duplicates, metrics, stats. May not import:
torch, store, summary, report.

Whoever adds a check writes a function `_Look -> findings` and a row in CHECKS.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab import duplicates
from tunelab.metrics import METRICS
from tunelab.stats import Runs, mean_interval
from tunelab.tables import rows_word, short
from tunelab.types import Dataset, Estimate, Predictions, Split

__all__ = [
    "CHECKS",
    "Example",
    "Finding",
    "FindingEffect",
    "Gate",
    "MethodEffect",
    "RowRef",
    "against",
    "bag_of",
    "effects",
    "gate_from_json",
    "gate_to_json",
    "inspect",
    "label_issues",
    "line",
    "lines",
    "out_of_fold",
]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
FindingLevel = Literal["fault", "warning", "note"]

EXAMPLES = 5
WORDS = 10_000_000  # words read by the label model and the language check, over all texts
BUCKETS = 1 << 18  # features of the label model: words and pairs of words, hashed
FOLDS = 5
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

    def of(self, check: str, where: str | None = None) -> tuple[Finding, ...]:
        """The findings of a check, in one place or in all."""
        return tuple(f for f in self.findings if f.check == check and where in (None, f.where))


def gate_to_json(gate: Gate) -> dict[str, Any]:
    """The gate as plain JSON values: the content of gate.json."""
    return asdict(gate)


def gate_from_json(value: Mapping[str, Any]) -> Gate:
    """Make a Gate of what `gate_to_json` gave (`store.read_gate`)."""
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


# --- the gate -------------------------------------------------------------------------------


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
        return duplicates.find_twins(self.texts)

    @cached_property
    def bag(self) -> Bag:
        return bag_of(self.twins)

    @cached_property
    def words(self) -> Ints:
        """Words of each text, split at white space, (n,)."""
        return np.fromiter((len(t.split()) for t in self.texts), np.int64, len(self.texts))

    def rows(self, part: str) -> Ints:
        return np.flatnonzero(self.part == PARTS.index(part))

    def ref(self, i: int | np.int64) -> RowRef:
        label = self.label_names[int(self.labels[i])]
        return RowRef(PARTS[int(self.part[i])], self.ids[i], label, short(self.texts[i]))

    def examples(
        self, rows: Iterable[Any], note: Callable[[int], str] = lambda _: ""
    ) -> tuple[Example, ...]:
        return tuple(Example((self.ref(i),), note(int(i))) for i in list(rows)[:EXAMPLES])

    def test_ids(self, rows: Ints) -> tuple[str, ...]:
        return tuple(self.ids[i] for i in rows if self.part[i] == PARTS.index("test"))


def inspect(dataset: Dataset, checks: Sequence[str] | None = None) -> Gate:
    """Run all checks (or those named) on a dataset. Raises KeyError for an unknown check."""
    look = view_of(dataset)
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    for name in checks if checks is not None else CHECKS:
        started = time.perf_counter()
        findings += CHECKS[name](look)
        seconds[name] = round(time.perf_counter() - started, 3)
    levels = ("fault", "warning", "note")
    findings.sort(key=lambda f: (levels.index(f.level), list(CHECKS).index(f.check)))
    return Gate(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        sizes={part: len(split) for part, split in dataset.parts.items()},
        findings=tuple(findings),
        seconds=seconds,
        notes=tuple(look.notes),
    )


def view_of(dataset: Dataset) -> DatasetView:
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


def against(dataset: Dataset, other: Dataset, parts: Sequence[str] = PARTS) -> tuple[Finding, ...]:
    """Look for the rows of another dataset (`--test-on`) in this one's training rows.

    `parts` are the other's parts that are to be scored. One finding a part that has such rows; its
    `test_ids` are ids of the other dataset, `where` is "train/<other's name> <part>".
    """
    out = []
    for part in parts:
        held: Split = other.parts[part]
        found = duplicates.match(dataset.train.texts, held.texts)
        rows = np.flatnonzero(found.found)
        if not len(rows):
            continue
        examples = []
        for i in rows[np.argsort(found.similarity[rows], kind="stable")][:EXAMPLES]:
            j = int(found.row[i])
            train_label = dataset.label_names[int(dataset.train.labels[j])]
            examples.append(
                Example(
                    (
                        RowRef("train", dataset.train.ids[j], train_label,
                               short(dataset.train.texts[j])),
                        RowRef(f"{other.name} {part}", held.ids[i],
                               other.label_names[int(held.labels[i])], short(held.texts[i])),
                    ),
                    said_alike(found.similarity[i]),
                )
            )  # fmt: skip
        same = int((found.similarity == 1).sum())
        out.append(
            leak_finding(
                f"train/{other.name} {part}",
                count=len(rows),
                of=len(held),
                same=same,
                examples=tuple(examples),
                ids=tuple(held.ids[i] for i in rows),
                place=f"the {part} part of {other.name}",
                advice="Leave them out of the score, or choose other training data.",
            )
        )
    return tuple(out)


# --- duplicates, leaks, conflicts -----------------------------------------------------------


def said_alike(similarity: float) -> str:
    return "the same, case and marks aside" if similarity == 1 else f"{similarity:.0%} alike"


def leak_finding(
    where: str,
    *,
    count: int,
    of: int,
    same: int,
    examples: tuple[Example, ...],
    ids: tuple[str, ...],
    place: str,
    advice: str,
    reference: str = "train",
    torn: int | None = None,
) -> Finding:
    return Finding(
        check="leak",
        where=where,
        level="fault" if count / of >= 0.01 and reference == "train" else "warning",
        count=count,
        of=of,
        says=f"{count:,} of {of:,} rows of {place} stand in {reference} too"
        + said_how_alike(same, count - same),
        advice=advice,
        numbers={
            "same": same,
            "near": count - same,
            "share": count / of,
            **({} if torn is None else {"other_label": torn}),
        },
        examples=examples,
        test_ids=ids,
    )


def said_how_alike(same: int, near: int) -> str:
    """How rows stand a second time: " (3 the same, 2 nearly)", ", nearly the same", or nothing."""
    if not near:
        return ""
    return f" ({same:,} the same, {near:,} nearly)" if same else ", nearly the same"


def find_leaks(look: DatasetView) -> list[Finding]:
    """Rows of a later part whose text, or nearly, stands in an earlier one."""
    out = []
    twins = look.twins
    for reference, part in (("train", "test"), ("train", "validation"), ("validation", "test")):
        row, similar = _best_match(twins, look.rows(reference), look.rows(part))
        found = np.flatnonzero(row >= 0)
        if not len(found):
            continue
        rows = look.rows(part)[found]
        order = np.argsort(similar[found], kind="stable")[:EXAMPLES]
        examples = tuple(
            Example((look.ref(row[found[i]]), look.ref(rows[i])), said_alike(similar[found[i]]))
            for i in order
        )
        advice = (
            "Remove them from train with --on-leak drop."
            if reference == "train"
            else "What is chosen on validation is then partly chosen on test."
        )
        out.append(
            leak_finding(
                f"{reference}/{part}",
                count=len(found),
                of=len(look.rows(part)),
                same=int((similar == 1).sum()),
                examples=examples,
                ids=look.test_ids(rows),
                place=f"the {part} part",
                advice=advice,
                reference=reference,
                torn=int((look.labels[row[found]] != look.labels[rows]).sum()),
            )
        )
    return out


def _best_match(twins: duplicates.Twins, reference: Ints, rows: Ints) -> tuple[Ints, Floats]:
    """For each of `rows` its likest row of `reference` (-1: none is near) and the similarity."""
    row_of = np.full(len(twins.first), -1, dtype=np.int64)
    row_of[twins.group[reference[::-1]]] = reference[::-1]
    return duplicates.nearest(twins, row_of, twins.group[rows])


def find_repeats(look: DatasetView) -> list[Finding]:
    """Rows whose text, or nearly, stood earlier in the same part."""
    out = []
    twins = look.twins
    for part in PARTS:
        rows = look.rows(part)
        group = twins.group[rows]
        first: dict[int, int] = {}
        earlier = np.array([first.setdefault(int(g), i) for i, g in enumerate(group)], np.int64)
        same = earlier < np.arange(len(rows))
        near: dict[int, tuple[int, float]] = {}
        for (a, b), s in zip(twins.pairs.tolist(), twins.similarity.tolist(), strict=True):
            if a in first and b in first:
                late, soon = (a, b) if first[a] > first[b] else (b, a)
                if s > near.get(late, (0, 0.0))[1]:
                    near[late] = (soon, s)
        n_same, n_near = int(same.sum()), len(near)
        if not n_same + n_near:
            continue
        shown = [
            Example((look.ref(rows[earlier[i]]), look.ref(rows[i])), said_alike(1.0))
            for i in np.flatnonzero(same)[:3]
        ]
        for late, (soon, s) in sorted(near.items(), key=lambda kv: (kv[1][1], kv[0])):
            if len(shown) >= EXAMPLES:
                break
            shown.append(
                Example((look.ref(rows[first[soon]]), look.ref(rows[first[late]])), said_alike(s))
            )
        late_rows = rows[[*np.flatnonzero(same), *(first[g] for g in near)]]
        share = (n_same + n_near) / len(rows)
        out.append(
            Finding(
                check="duplicates",
                where=part,
                level="warning" if share >= 0.05 else "note",
                count=n_same + n_near,
                of=len(rows),
                says=f"{n_same + n_near:,} of {len(rows):,} rows of {part} repeat an earlier one"
                + said_how_alike(n_same, n_near),
                advice="They count more than once." if part != "train" else "",
                numbers={"same": n_same, "near": n_near, "share": share},
                examples=tuple(shown),
                test_ids=look.test_ids(late_rows),
            )
        )
    return out


def find_conflicts(look: DatasetView) -> list[Finding]:
    """Texts that are the same and carry more than one label."""
    group, labels = look.twins.group, look.labels
    low = np.full(len(look.twins.first), len(look.label_names), dtype=np.int64)
    high = np.full(len(look.twins.first), -1, dtype=np.int64)
    np.minimum.at(low, group, labels)
    np.maximum.at(high, group, labels)
    torn = low < high
    rows = np.flatnonzero(torn[group])
    if not len(rows):
        return []
    members: dict[int, list[int]] = {}
    for i in rows:
        members.setdefault(int(group[i]), []).append(int(i))
    shown = sorted(members.values(), key=lambda m: (-len(m), m))[:EXAMPLES]
    return [
        Finding(
            check="conflicts",
            where="all",
            level="warning",
            count=len(rows),
            of=len(labels),
            says=f"{len(members):,} text{'s' * (len(members) > 1)} ({rows_word(len(rows))}) "
            f"carry more than one label",
            advice="No model can be right on all of them: correct the labels.",
            numbers={"texts": len(members)},
            examples=tuple(Example(tuple(look.ref(i) for i in m[:EXAMPLES])) for m in shown),
            test_ids=look.test_ids(rows),
        )
    ]


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

        found = csr_array(
            (np.ones(len(flat), dtype=np.float32), flat, self.starts),
            shape=(len(self.starts) - 1, width),
        )
        found.sum_duplicates()
        return found


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


# --- labels ---------------------------------------------------------------------------------


def _features(bag: Bag, rows: int = 4096) -> Any:
    """TF-IDF of words and pairs of words, hashed: sparse (groups, BUCKETS), rows of length one.

    Counted so many texts at a time: what counting needs beside the result does not grow with them.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfTransformer

    n = len(bag.starts) - 1
    counts = vstack(
        [_hashed_counts(bag, a, min(n, a + rows)) for a in range(0, max(1, n), rows)], format="csr"
    )
    return TfidfTransformer(sublinear_tf=True).fit(counts).transform(counts, copy=False)


def _hashed_counts(bag: Bag, begin: int, end: int) -> Any:
    """Counts of words and pairs of words of texts begin..end, sparse (end - begin, BUCKETS)."""
    from scipy.sparse import csr_array

    starts = bag.starts[begin : end + 1] - bag.starts[begin]
    flat = bag.flat[bag.starts[begin] : bag.starts[end]].astype(np.uint64)
    one = flat * np.uint64(0x9E3779B97F4A7C15)
    two = (flat[:-1] + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9) ^ flat[1:] * np.uint64(
        0x94D049BB133111EB
    )
    within = np.ones(max(0, len(flat) - 1), dtype=np.bool_)
    breaks = starts[1:-1]
    within[breaks[(breaks > 0) & (breaks < len(flat))] - 1] = False
    owner = np.repeat(np.arange(end - begin, dtype=np.int32), np.diff(starts))
    owners = np.concatenate([owner, owner[:-1][within]])
    shift = np.uint64(64 - BUCKETS.bit_length() + 1)
    buckets = (np.concatenate([one, _scattered(two[within])]) >> shift).astype(np.int32)
    return csr_array(
        (np.ones(len(owners), dtype=np.float32), (owners, buckets)),
        shape=(end - begin, BUCKETS),
    )


def _scattered(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.asarray((h ^ (h >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15))


def label_issues(labels: Ints, probabilities: Floats) -> Ints:
    """Rows whose label is probably wrong, the likeliest first: cleanlab on out-of-fold
    probabilities (n, k) (Northcutt, Jiang and Chuang 2021, "Confident learning").
    """
    from cleanlab.filter import find_label_issues

    found = find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return np.asarray(found, dtype=np.int64)


def out_of_fold(twins: duplicates.Twins, bag: Bag, labels: Ints, k: int, seed: int = 0) -> Floats:
    """Class probabilities (n, k) of each row by a linear TF-IDF model that has not seen its text.

    Texts that are the same lie in one fold; folds are stratified.
    """
    from sklearn.linear_model import LogisticRegression

    features = _used_columns(_features(bag))
    group_label = labels[twins.first]
    order = np.random.default_rng(seed).permutation(len(group_label))
    order = order[np.argsort(group_label[order], kind="stable")]
    fold_of_group = np.empty(len(order), dtype=np.int64)
    fold_of_group[order] = np.arange(len(order)) % FOLDS
    fold = fold_of_group[twins.group]
    out = np.zeros((len(labels), k))
    for f in range(FOLDS):
        train, held = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        if not len(held):
            continue
        present = np.unique(labels[train])
        if len(present) < 2:
            out[held[:, None], present[None, :]] = 1.0
            continue
        model = LogisticRegression(C=10.0, tol=1e-3, max_iter=60)
        _fit_quietly(model, features[twins.group[train]], labels[train])
        out[held[:, None], present[None, :]] = model.predict_proba(features[twins.group[held]])
    return out


def _used_columns(features: Any) -> Any:
    """The columns (buckets) that some row has. One that no row has keeps a weight of zero, but the
    optimiser would carry it along for each class: on few rows that is nearly all its work.
    """
    from scipy.sparse import csr_array

    used = np.zeros(features.shape[1], dtype=np.bool_)
    used[features.indices] = True
    at = (np.cumsum(used) - 1).astype(features.indices.dtype)
    shape = (features.shape[0], int(used.sum()))
    return csr_array((features.data, at[features.indices], features.indptr), shape=shape)


def _fit_quietly(model: Any, features: Any, labels: Ints) -> None:
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # A ranking of doubtful labels does not need the last digit of the optimum.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)


def find_label_errors(look: DatasetView) -> list[Finding]:
    """Labels that a model that has not seen the row contradicts with confidence."""
    n, k = len(look.labels), len(look.label_names)
    counts = np.bincount(look.labels, minlength=k)
    if n < 50 or counts.min() < FOLDS or n * k > 20_000_000:
        why = (
            "too few rows" if n < 50 else
            f"a class has fewer than {FOLDS} rows" if counts.min() < FOLDS else
            f"{n:,} rows times {k:,} classes are too many"
        )  # fmt: skip
        look.notes.append(f"label errors are not looked for: {why}")
        return []
    probabilities = out_of_fold(look.twins, look.bag, look.labels, k)
    accuracy = float((probabilities.argmax(axis=1) == look.labels).mean())
    majority = float(counts.max() / n)
    if accuracy < majority + 0.05:
        look.notes.append(
            f"label errors are not looked for: a TF-IDF model is right on {accuracy:.0%}, always "
            f"saying the largest class on {majority:.0%}: it cannot judge labels"
        )
        return []
    rows = label_issues(look.labels, probabilities)
    if not len(rows):
        return []

    def note(i: int) -> str:
        likely = int(probabilities[i].argmax())
        own = probabilities[i, look.labels[i]]
        return (
            f"looks like {look.label_names[likely]!r} ({probabilities[i, likely]:.0%}; "
            f"its own label {own:.0%})"
        )

    return [
        Finding(
            check="label-errors",
            where="all",
            level="warning" if len(rows) / n >= 0.05 and accuracy > 0.9 else "note",
            count=len(rows),
            of=n,
            says=f"{len(rows):,} of {n:,} labels are doubtful: a TF-IDF model that did not see the "
            f"row is sure of another class (it is right on {accuracy:.0%} of rows)",
            advice="Read the first ones: some are wrong, others only hard.",
            numbers={"share": len(rows) / n, "out_of_fold_accuracy": accuracy},
            examples=look.examples(rows, note),
            test_ids=look.test_ids(rows),
        )
    ]


def find_imbalance(look: DatasetView) -> list[Finding]:
    """One class that is most rows, classes with hardly any, and parts of another mixture."""
    out = []
    k, names = len(look.label_names), look.label_names
    counts = {p: np.bincount(look.labels[look.rows(p)], minlength=k) for p in PARTS}
    test, train = counts["test"], counts["train"]
    share = float(test.max() / test.sum())
    ratio = float(train.max() / max(1, train.min()))
    if share >= 0.8 or ratio >= 10:
        most, least = int(test.argmax()), int(train.argmin())
        out.append(
            Finding(
                check="imbalance",
                where="labels",
                level="warning",
                count=int(train.min()),
                of=int(train.sum()),
                says=f"always saying {names[most]!r} is right on {share:.1%} of test; the rarest "
                f"class, {names[least]!r}, has {rows_word(int(train.min()))} in train",
                advice="Judge by --metric f1_macro or balanced_accuracy.",
                numbers={"majority": share, "ratio": ratio},
            )
        )
    for part in ("validation", "test"):
        p = _same_mixture(train, counts[part])
        distance = float(np.abs(train / train.sum() - counts[part] / counts[part].sum()).sum() / 2)
        if p < 1e-4 and distance >= 0.05:
            far = int(np.abs(train / train.sum() - counts[part] / counts[part].sum()).argmax())
            out.append(
                Finding(
                    check="imbalance",
                    where=f"train/{part}",
                    level="warning",
                    count=int(counts[part].sum()),
                    of=int(counts[part].sum()),
                    says=f"{part} has another mixture of labels than train: {names[far]!r} is "
                    f"{counts[part][far] / counts[part].sum():.0%} of {part} and "
                    f"{train[far] / train.sum():.0%} of train",
                    advice="They may not come from the same source.",
                    numbers={"distance": distance, "p_value": p},
                )
            )
    return out


def _same_mixture(a: Ints, b: Ints) -> float:
    """Chi-square p that two rows of counts come from one mixture."""
    from scipy.stats import chi2_contingency

    seen = (a + b) > 0
    if seen.sum() < 2:
        return 1.0
    return float(chi2_contingency(np.stack([a[seen], b[seen]])).pvalue)


# --- texts ----------------------------------------------------------------------------------


def find_wordless_texts(look: DatasetView) -> list[Finding]:
    """Texts of one word, or of none once marks and HTML are gone."""
    few = np.array([len(t.split()) for t in look.twins.texts])[look.twins.group]
    wordless = np.array([not any(map(str.isalnum, t)) for t in look.twins.texts])[look.twins.group]
    rows = np.flatnonzero((few <= 1) | wordless)
    if not len(rows):
        return []
    none = int(wordless.sum())
    return [
        finding_of_texts(
            look,
            "short",
            rows,
            what=f"have one word or none ({none:,} without any letter)",
            advice="There is hardly anything to classify.",
            numbers={"wordless": none},
        )
    ]


def finding_of_texts(
    look: DatasetView,
    check: str,
    rows: Ints,
    *,
    what: str,
    advice: str,
    numbers: Mapping[str, float] | None = None,
    note: Callable[[int], str] = lambda _: "",
) -> Finding:
    n = len(look.texts)
    return Finding(
        check=check,
        where="all",
        level="warning" if len(rows) / n >= 0.01 else "note",
        count=len(rows),
        of=n,
        says=f"{len(rows):,} of {n:,} texts {what}",
        advice=advice,
        numbers={"share": len(rows) / n, **(numbers or {})},
        examples=look.examples(rows, note),
        test_ids=look.test_ids(rows),
    )


# What a wrong decoding leaves: a letter's bytes side by side, or a code of no character. Ã alone is
# a letter.
_SUSPECT = re.compile("[^\x00-\x7f]{2}|[\x80-\x9f]")


def mended(text: str) -> str | None:
    """The text with what was decoded with the wrong encoding put right; None if it has none.

    "cafÃ©" gives "café" (Speer 2019, ftfy; https://ftfy.readthedocs.io).
    """
    import ftfy

    if text.isascii() or not _SUSPECT.search(text):
        return None
    fixed = ftfy.fix_encoding(text)
    return fixed if fixed != text else None


def find_mojibake(look: DatasetView) -> list[Finding]:
    """Text read in another encoding ("cafÃ©"), and the mark of what could not be decoded."""
    right: dict[int, str | None] = {}
    for i, text in enumerate(look.texts):
        if "\ufffd" in text:
            right[i] = None
        elif (fixed := mended(text)) is not None:
            right[i] = fixed
    if not right:
        return []
    rows = np.array(list(right), dtype=np.int64)
    return [
        finding_of_texts(
            look,
            "mojibake",
            rows,
            what="were decoded with the wrong encoding",
            advice="Read the file again with --encoding.",
            note=lambda i: f"meant: {short(right[i] or '', 120)}" if right[i] else "U+FFFD",
        )
    ]


_HTML = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|center|code|div|em|font|h[1-6]|head|hr|html|i|img|li|"
    r"link|meta|ol|p|pre|script|small|span|strong|style|sub|sup|table|tbody|td|th|tr|tt|u|ul)\b"
    r"[^<>]{0,300}>|&(?:[a-z]{2,8}|#[0-9]{1,6}|#x[0-9a-f]{1,5});",
    re.IGNORECASE,
)


def find_html(look: DatasetView) -> list[Finding]:
    """Tags and entities of HTML."""
    rows = np.array(
        [i for i, t in enumerate(look.texts) if ("<" in t or "&" in t) and _HTML.search(t)],
        dtype=np.int64,
    )
    if not len(rows):
        return []

    def note(i: int) -> str:
        found = _HTML.search(look.texts[i])
        return found[0] if found else ""

    advice = "Strip it, unless texts in use hold it too."
    return [finding_of_texts(look, "html", rows, what="hold HTML", advice=advice, note=note)]


SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "Greek": ((0x370, 0x3FF),),
    "Cyrillic": ((0x400, 0x52F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "Devanagari": ((0x900, 0x97F),),
    "Thai": ((0xE00, 0xE7F),),
    "Korean": ((0xAC00, 0xD7AF), (0x1100, 0x11FF)),
    "Japanese or Chinese": ((0x3040, 0x30FF), (0x4E00, 0x9FFF)),
}
LEAST_WORDS = 6  # a shorter text says little about its language


def _stop_words() -> dict[str, str]:
    import yaml

    text = (resources.files("tunelab") / "lists" / "stop_words.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def languages(look_texts: duplicates.Twins, bag: Bag) -> list[str | None]:
    """The language or script of each distinct text; None where the words do not tell.

    Counts the different frequent words of eleven languages (lists/stop_words.yaml); a language is
    named where at least three of its own, as many as a sixth of all words, and twice as many as
    of any other occur. Scripts are told by their letters.
    """
    stop_words = _stop_words()
    names = list(stop_words)
    lists = np.zeros((len(bag.number), len(names)), dtype=np.float32)
    for j, words in enumerate(stop_words.values()):
        for word in words.split():
            if word in bag.number:
                lists[bag.number[word], j] = 1
    present = bag.matrix(bag.flat, len(bag.number))
    present.data[:] = 1
    counts = np.asarray(present @ lists)
    size = np.diff(bag.starts)
    ranked = np.sort(counts, axis=1)
    sure = (
        (ranked[:, -1] >= 3)
        & (ranked[:, -1] >= size / 6)
        & (ranked[:, -1] >= 2 * ranked[:, -2])
        & (size >= LEAST_WORDS)
    )
    best = counts.argmax(axis=1)
    out: list[str | None] = [names[b] if s else None for b, s in zip(best, sure, strict=True)]
    for i, text in enumerate(look_texts.texts):
        if not text.isascii():
            script = _script(text)
            if script is not None:
                out[i] = script
    return out


def _script(text: str) -> str | None:
    """The script of most letters, where it is one of SCRIPTS."""
    letters = [ord(c) for c in text[:1000] if c.isalpha()]
    if not letters:
        return None
    for name, ranges in SCRIPTS.items():
        inside = sum(any(low <= c <= high for low, high in ranges) for c in letters)
        if inside > len(letters) / 2:
            return name
    return None


def find_other_languages(look: DatasetView) -> list[Finding]:
    """Texts in another language or script than most."""
    of_group = languages(look.twins, look.bag)
    known = Counter(of_group[g] for g in look.twins.group if of_group[g] is not None)
    if not known:
        look.notes.append("languages are not told apart: no text has enough words that are known")
        return []
    main = known.most_common(1)[0][0]
    rows = np.array(
        [i for i, g in enumerate(look.twins.group) if of_group[g] not in (None, main)],
        dtype=np.int64,
    )
    if not len(rows):
        return []
    others = Counter(str(of_group[look.twins.group[i]]) for i in rows)
    named = ", ".join(f"{k} {v:,}" for k, v in others.most_common(4))
    return [
        finding_of_texts(
            look,
            "language",
            rows,
            what=f"are not in {main} as most are ({named})",
            advice="A model of one language reads them badly.",
            numbers=dict(others),
            note=lambda i: str(of_group[look.twins.group[i]]),
        )
    ]


def find_unusual_lengths(look: DatasetView) -> list[Finding]:
    """Texts far longer or shorter than the rest: outside Tukey's far fences of log length."""
    logs = np.log(np.maximum(1, look.words))
    low, high = np.percentile(logs, [25, 75])
    # Where most texts are of one length, a quarter of it either way is still no outlier.
    spread = max(float(high - low), 0.2)
    rows = np.flatnonzero((logs < low - 3 * spread) | (logs > high + 3 * spread))
    if not len(rows):
        return []
    rows = rows[np.argsort(-np.abs(logs[rows] - np.median(logs)), kind="stable")]
    middle = float(np.median(look.words))
    return [
        finding_of_texts(
            look,
            "length",
            rows,
            what=f"are far from the usual length (median {middle:.0f} words; these "
            f"{look.words[rows].min():,} to {look.words[rows].max():,})",
            advice="Long ones are cut at max_length.",
            numbers={"median": middle},
            note=lambda i: f"{look.words[i]:,} words",
        )
    ]


# --- what gives the label away --------------------------------------------------------------

_WORD_OF_COLUMN = re.compile(r"[^\W\d_]{2,}")


def find_leaking_columns(look: DatasetView) -> list[Finding]:
    """Further columns that predict the label alone: by value, by range, or by a word in it."""
    out = []
    k = len(look.label_names)
    base = float(np.bincount(look.labels, minlength=k).max() / len(look.labels))
    for name, values in look.columns.items():
        best, how = 0.0, ""
        for reading, codes in _readings(values):
            right = _by_value(codes, look.labels, k)
            if right > best + 0.005:
                best, how = right, reading
        lift = (best - base) / max(1e-9, 1 - base)
        if lift < 0.5:
            continue
        sure = lift >= 0.9
        shown = [i for i, v in enumerate(values) if v is not None]
        out.append(
            Finding(
                check="leaking-column",
                where=name,
                level="warning" if sure else "note",
                count=len(values),
                of=len(values),
                says=f"column {name!r} alone ({how}) tells the label of {best:.1%} of rows "
                f"(always the largest class: {base:.1%})",
                advice="tunelab trains on the text alone; never put this column into the text.",
                numbers={"accuracy": best, "majority": base, "lift": lift},
                examples=look.examples(shown, lambda i, v=values, c=name: f"{c} = {v[i]}"),  # type: ignore[misc]
            )
        )
    return out


def _readings(values: Sequence[Any]) -> Iterable[tuple[str, Ints]]:
    """Ways to read a column as classes: (name, codes (n,))."""
    numeric = all(v is None or isinstance(v, int | float) for v in values)
    distinct = {v for v in values if v is not None}
    if len(distinct) <= max(20, len(values) // 10):
        yield "its value", _codes(values)
    if numeric and len(distinct) > 20:
        x = np.array([np.nan if v is None else float(v) for v in values])
        edges = np.nanquantile(x, np.linspace(0, 1, 21)[1:-1])
        yield "its range", np.where(np.isnan(x), -1, np.searchsorted(edges, x)).astype(np.int64)
    if not numeric:
        words = [_WORD_OF_COLUMN.findall(str(v).lower()) if v is not None else [] for v in values]
        yield "its first word", _codes([w[0] if w else None for w in words])
        yield "its words", _codes([" ".join(w[:4]) if w else None for w in words])
        yield "its last word", _codes([w[-1] if w else None for w in words])


def _codes(values: Sequence[Any]) -> Ints:
    number: dict[Any, int] = {}
    return np.array([number.setdefault(v, len(number)) for v in values], dtype=np.int64)


def _by_value(codes: Ints, labels: Ints, k: int) -> float:
    """Share of rows whose label is what most rows of the same code in the other half have."""
    codes = codes - codes.min()
    half = np.random.default_rng(0).permutation(len(codes)) % 2
    right = 0
    for h in (0, 1):
        known, asked = half != h, half == h
        table = np.zeros((int(codes.max()) + 1, k))
        np.add.at(table, (codes[known], labels[known]), 1)
        # Codes that the other half has not: the largest class.
        table += 1e-6 * np.bincount(labels[known], minlength=k)
        right += int((table[codes[asked]].argmax(axis=1) == labels[asked]).sum())
    return right / len(codes)


def _elsewhere(texts: int) -> str:
    return "no other text" if not texts else f"only {texts:,} other{'s' if texts > 1 else ''}"


def find_giveaways(look: DatasetView) -> list[Finding]:
    """Words that a fifth of a class's texts have and hardly any other: a label within the text."""
    k, n = len(look.label_names), len(look.labels)
    if n < 50:
        return []
    present = look.bag.matrix(look.bag.flat, len(look.bag.number))
    present.data[:] = 1
    from scipy.sparse import csr_array

    by_group = csr_array(
        (np.ones(n, dtype=np.float32), (look.labels, look.twins.group)),
        shape=(k, len(look.twins.first)),
    )
    table = np.asarray((by_group @ present).todense())  # (k, vocabulary)
    sizes = np.bincount(look.labels, minlength=k)[:, None]
    total = table.sum(axis=0, keepdims=True)
    strong = (table / np.maximum(1, sizes) >= 0.2) & (table >= 0.98 * total) & (table >= 10)
    strong &= sizes < 0.9 * n
    words = list(look.bag.number)
    out = []
    for c, w in sorted(np.argwhere(strong).tolist(), key=lambda cw: -table[cw[0], cw[1]])[:3]:
        groups = np.flatnonzero(np.asarray(present[:, [w]].todense()).ravel() > 0)
        rows = np.flatnonzero(np.isin(look.twins.group, groups))
        label = look.label_names[c]
        out.append(
            Finding(
                check="giveaway",
                where=words[w],
                level="warning",
                count=len(rows),
                of=n,
                says=f"the word {words[w]!r} is in {table[c, w] / sizes[c, 0]:.0%} of the texts of "
                f"{label!r} and in {_elsewhere(int(total[0, w] - table[c, w]))}",
                advice="If a text would not have it in use, remove it: models will read it alone.",
                numbers={"share": float(table[c, w] / sizes[c, 0])},
                examples=look.examples(rows),
                test_ids=look.test_ids(rows),
            )
        )
    return out


CHECKS: dict[str, Callable[[DatasetView], list[Finding]]] = {
    "leak": find_leaks,
    "duplicates": find_repeats,
    "conflicts": find_conflicts,
    "label-errors": find_label_errors,
    "leaking-column": find_leaking_columns,
    "giveaway": find_giveaways,
    "imbalance": find_imbalance,
    "short": find_wordless_texts,
    "mojibake": find_mojibake,
    "html": find_html,
    "language": find_other_languages,
    "length": find_unusual_lengths,
}


# --- what it does to the conclusion ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MethodEffect:
    """A method's metric over all test rows, without the affected ones, and on those alone.

    Means over seeds with Student's t intervals; None where the rows that are left cannot be scored.
    """

    label: str
    all: Estimate
    without: Estimate | None
    alone: Estimate | None


@dataclass(frozen=True, slots=True)
class FindingEffect:
    """What the test rows of one finding do to the conclusion of a study.

    `removed` of `rows` test rows are affected. `first` and `first_without` are the methods with
    the best mean on test; where they differ, the finding decides the conclusion.
    """

    check: str
    where: str
    metric: str
    removed: int
    rows: int
    methods: tuple[MethodEffect, ...]
    first: str
    first_without: str | None
    sentence: str


def effects(
    gate: Gate, runs: Sequence[Runs], metric: str = "accuracy",
    checks: Sequence[str] = ("leak", "conflicts", "label-errors", "duplicates"),
) -> tuple[FindingEffect, ...]:  # fmt: skip
    """Score methods with and without the test rows of each finding, where it has any.

    `runs` are test predictions by method and seed; methods on which the metric has no value are
    left out. Raises KeyError for an unknown metric.
    """
    out = []
    for finding in gate.findings:
        if finding.check not in checks or not finding.test_ids or not runs:
            continue
        some = next(p for r in runs for p in r.by_seed.values())
        hit = np.isin(np.array(some.ids, dtype=object), np.array(finding.test_ids, dtype=object))
        if not hit.any():
            continue
        methods = tuple(
            MethodEffect(
                r.label, whole, _mean_on_rows(r, metric, ~hit), _mean_on_rows(r, metric, hit)
            )
            for r in runs
            if (whole := _mean_on_rows(r, metric, np.ones(len(hit), np.bool_))) is not None
        )
        if not methods:
            continue
        sign = 1 if METRICS[metric].higher_is_better else -1
        first = max(methods, key=lambda m: sign * m.all.value).label
        scored = [m for m in methods if m.without is not None]
        first_without = (
            max(scored, key=lambda m: sign * m.without.value).label if scored else None  # type: ignore[union-attr]
        )
        partial = FindingEffect(
            finding.check, finding.where, metric, int(hit.sum()), len(hit), methods, first,
            first_without, "",
        )  # fmt: skip
        values = {f.name: getattr(partial, f.name) for f in fields(FindingEffect)}
        out.append(FindingEffect(**{**values, "sentence": _effect_sentence(partial)}))
    return tuple(out)


def _mean_on_rows(runs: Runs, metric: str, rows: Bools) -> Estimate | None:
    if not rows.any():
        return None
    values = []
    for p in runs.by_seed.values():
        kept = Predictions((), p.labels[rows], p.scores[rows], p.score_kind)
        try:
            values.append(METRICS[metric].function(kept))
        except ValueError:  # a class is not among the rows that are left
            return None
    return mean_interval(values)


_OF_CHECK = {
    "leak": "leaked",
    "conflicts": "with conflicting labels",
    "label-errors": "with doubtful labels",
    "duplicates": "repeated",
}


def _effect_sentence(e: FindingEffect) -> str:
    what = f"{e.removed:,} of {e.rows:,} test rows are {_OF_CHECK.get(e.check, e.check)}"
    if e.check == "leak":
        what += f" from {e.where.split('/')[0]}"
    percent = METRICS[e.metric].percent
    scale, unit, digits = (100.0, " points", 1) if percent else (1.0, "", 3)
    changes = [scale * (m.without.value - m.all.value) for m in e.methods if m.without is not None]
    if not changes:
        return f"{what}: without them nothing is left to score"
    low, high = min(changes), max(changes)
    span = (
        f"{low:+.{digits}f}{unit}"
        if f"{low:.{digits}f}" == f"{high:.{digits}f}"
        else f"{low:+.{digits}f} to {high:+.{digits}f}{unit}"
    )
    label = METRICS[e.metric].label
    then = (
        f"{e.first} stays first"
        if e.first == e.first_without
        else f"{e.first_without} is first then, not {e.first}"
    )
    if len(e.methods) == 1:
        return f"{what}: without them {label} changes by {span}"
    return f"{what}: without them {label} changes by {span}, and {then}"
