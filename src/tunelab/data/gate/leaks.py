"""Checks of texts that stand in two parts, repeat, or have two labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tunelab.core.values import Dataset, Split
from tunelab.core.words import agreeing, rows_word, short
from tunelab.data import duplicates
from tunelab.data.gate.values import (
    EXAMPLES,
    PARTS,
    DatasetView,
    Example,
    Finding,
    Gate,
    RowRef,
)
from tunelab.data.passages import Likeness
from tunelab.data.several import combinations_as_classes

__all__ = [
    "against",
    "find_conflicts",
    "find_leaks",
    "find_repeats",
    "joined_leaks",
]


def against(dataset: Dataset, other: Dataset, parts: Sequence[str] = PARTS) -> tuple[Finding, ...]:
    """Look for the rows of another dataset (`--test-on`) in this one's training rows.

    `parts` are the other's parts that are to be scored. One finding a part that has such rows; its
    `test_ids` are ids of the other dataset, `where` is "train/<other's name> <part>".
    """
    out = []
    dataset, other = combinations_as_classes(dataset), combinations_as_classes(other)
    train = dataset.train
    number = {name: i for i, name in enumerate((*dataset.label_names, *other.label_names))}
    numbers = [
        np.array([number[x] for x in names]) for names in (dataset.label_names, other.label_names)
    ]
    for part in parts:
        held: Split = other.parts[part]
        labels = numbers[0][train.labels], numbers[1][held.labels]
        matches = duplicates.match(train.texts, held.texts, labels)
        if not matches.found.any():
            continue
        place = f"{other.name} {part}"
        examples = tuple(
            Example(
                (
                    _row_of("train", train, dataset.label_names, int(matches.row[i])),
                    _row_of(place, held, other.label_names, int(i)),
                ),
                said_alike(matches.kind[i], matches.similarity[i]),
            )
            for i in _rows_to_show(matches)
        )
        out.append(
            leak_finding(
                f"train/{place}",
                matches,
                examples=examples,
                ids=tuple(held.ids[i] for i in np.flatnonzero(matches.found)),
                place=f"the {part} part of {other.name}",
                advice="Leave them out of the score, or choose other training data.",
            )
        )
    return tuple(out)


def joined_leaks(first: Gate, others: Sequence[Gate]) -> Gate:
    """The gate of a first fold of a data set, with the leaks of all its folds together, and texts
    with more than one label wherever they are tested.
    """
    gates = (first, *others)
    parts = f"{{}} parts of {len(gates)} folds" if others else "{} part"
    out = []
    for where in dict.fromkeys(f.where for g in gates for f in g.of("leak")):
        reference, _, part = where.partition("/")
        of_fold = [f for g in gates for f in g.of("leak", where)]
        count, of = sum(f.count for f in of_fold), sum(g.sizes[part] for g in gates)
        numbers = {k: sum(f.numbers[k] for f in of_fold) for k in of_fold[0].numbers}
        kinds = {kind: int(numbers[kind.name.lower()]) for kind in Likeness}
        out.append(
            replace(
                of_fold[0],
                level="fault" if count / of >= 0.01 and reference == "train" else "warning",
                count=count,
                of=of,
                says=f"{count:,} of {rows_word(of)} of the {parts.format(part)} "
                f"{agreeing(count, 'stand')} in {reference} too{said_how_alike(kinds)}",
                numbers={**numbers, "share": count / of},
                test_ids=tuple(dict.fromkeys(i for f in of_fold for i in f.test_ids)),
            )
        )
    torn_texts = [i for g in gates for f in g.of("conflicts") for i in f.test_ids]
    for f in first.findings:
        if f.check == "conflicts":
            out.append(replace(f, test_ids=tuple(dict.fromkeys(torn_texts))))
        elif f.check != "leak":
            out.append(f)
    levels = ("fault", "warning", "note")
    return replace(first, findings=tuple(sorted(out, key=lambda f: levels.index(f.level))))


def _row_of(part: str, split: Split, label_names: Sequence[str], i: int) -> RowRef:
    return RowRef(part, split.ids[i], label_names[int(split.labels[i])], short(split.texts[i]))


# --- duplicates, leaks, conflicts -----------------------------------------------------------


def said_alike(kind: int | np.int64, similarity: float) -> str:
    """How two texts are alike, for an example."""
    return {
        Likeness.SAME: "the same, case and marks aside",
        Likeness.NEAR: f"nearly the same: {similarity:.0%} of the wording",
        Likeness.CONTAINED: f"contained: {similarity:.0%} of the shorter is in the other",
    }[Likeness(int(kind))]


def _rows_to_show(matches: duplicates.Matches) -> list[int]:
    """Rows to show: of each kind in turn, the least alike first: those a reader has to judge."""
    by_kind = [
        rows[np.argsort(matches.similarity[rows], kind="stable")]
        for kind in (Likeness.NEAR, Likeness.CONTAINED, Likeness.SAME)
        if len(rows := np.flatnonzero(matches.kind == kind))
    ]
    turns = itertools.zip_longest(*(rows[:EXAMPLES] for rows in by_kind))
    return [int(i) for turn in turns for i in turn if i is not None][:EXAMPLES]


def leak_finding(
    where: str,
    matches: duplicates.Matches,
    *,
    examples: tuple[Example, ...],
    ids: tuple[str, ...],
    place: str,
    advice: str,
    reference: str = "train",
    torn: int | None = None,
) -> Finding:
    count, of = int(matches.found.sum()), len(matches.row)
    kinds = {kind: matches.count(kind) for kind in Likeness}
    return Finding(
        check="leak",
        where=where,
        level="fault" if count / of >= 0.01 and reference == "train" else "warning",
        count=count,
        of=of,
        says=f"{count:,} of {rows_word(of)} of {place} {agreeing(count, 'stand')} in {reference} "
        "too" + said_how_alike(kinds),
        advice=advice,
        numbers={
            **{kind.name.lower(): kinds[kind] for kind in Likeness},
            "share": count / of,
            **({} if torn is None else {"other_label": torn}),
        },
        examples=examples,
        test_ids=ids,
    )


def said_how_alike(kinds: Mapping[Likeness, int]) -> str:
    """How rows stand a second time: " (3 the same, 2 nearly)", ", nearly the same", or nothing."""
    some = [kind for kind in Likeness if kinds[kind]]
    if not some or some == [Likeness.SAME]:
        return ""
    if len(some) == 1:
        return {Likeness.NEAR: ", nearly the same", Likeness.CONTAINED: ", in part"}[some[0]]
    words = {Likeness.SAME: "the same", Likeness.NEAR: "nearly", Likeness.CONTAINED: "in part"}
    return f" ({', '.join(f'{kinds[kind]:,} {words[kind]}' for kind in some)})"


def find_leaks(look: DatasetView) -> list[Finding]:
    """Rows of a later part whose text, nearly or in part, stands in an earlier one."""
    out = []
    twins = look.twins
    for reference, part in (("train", "test"), ("train", "validation"), ("validation", "test")):
        earlier, rows = look.rows(reference), look.rows(part)
        row_of = np.full(len(twins.first), -1, dtype=np.int64)
        row_of[twins.group[earlier[::-1]]] = earlier[::-1]
        matches = duplicates.nearest(twins, row_of, twins.group[rows])
        leaked = np.flatnonzero(matches.found)
        if not len(leaked):
            continue
        examples = tuple(
            Example(
                (look.ref(matches.row[i]), look.ref(rows[i])),
                said_alike(matches.kind[i], matches.similarity[i]),
            )
            for i in _rows_to_show(matches)
        )
        advice = (
            "Remove them from train with --on-leak drop."
            if reference == "train"
            else "What is chosen on validation is then partly chosen on test."
        )
        out.append(
            leak_finding(
                f"{reference}/{part}",
                matches,
                examples=examples,
                ids=look.test_ids(rows[leaked]),
                place=f"the {part} part",
                advice=advice,
                reference=reference,
                torn=int((look.labels[matches.row[leaked]] != look.labels[rows[leaked]]).sum()),
            )
        )
    return out


def find_repeats(look: DatasetView) -> list[Finding]:
    """Rows whose text, or nearly, stood earlier in the same part; and how many share a passage.

    Those that are contained in another one do no harm within a part: they are only counted.
    """
    out = []
    for part in PARTS:
        rows = look.rows(part)
        group = look.twins.group[rows]
        first: dict[int, int] = {}
        earlier = np.array([first.setdefault(int(g), i) for i, g in enumerate(group)], np.int64)
        same = np.flatnonzero(earlier < np.arange(len(rows)))
        near = _likest_earlier(look.twins, first, Likeness.NEAR)
        contained = _likest_earlier(look.twins, first, Likeness.CONTAINED)
        contained = {late: soon for late, soon in contained.items() if late not in near}
        if not len(same) + len(near) + len(contained):
            continue
        shown = [(earlier[i], i, Likeness.SAME, 1.0) for i in same[:3]]
        shown += [
            (first[soon], first[late], kind, similar)
            for kind, likest in ((Likeness.NEAR, near), (Likeness.CONTAINED, contained))
            for late, (soon, similar) in sorted(likest.items(), key=lambda kv: (kv[1][1], kv[0]))
        ]
        count = len(same) + len(near)
        share = count / len(rows)
        of, shares = f"of {rows_word(len(rows))} of {part}", agreeing(len(contained), "share")
        told = f"{count:,} {of} {agreeing(count, 'repeat')} an earlier one" + said_how_alike(
            {Likeness.SAME: len(same), Likeness.NEAR: len(near), Likeness.CONTAINED: 0}
        )
        if contained and count:
            told += f"; {len(contained):,} more {shares} a passage with one"
        elif contained:
            told = f"{len(contained):,} {of} {shares} a passage with another"
        out.append(
            Finding(
                check="duplicates",
                where=part,
                level="warning" if share >= 0.05 else "note",
                count=count or len(contained),
                of=len(rows),
                says=told,
                advice="They count more than once." if part != "train" and count else "",
                numbers={
                    "same": len(same),
                    "near": len(near),
                    "contained": len(contained),
                    "share": share,
                },
                examples=tuple(
                    Example((look.ref(rows[soon]), look.ref(rows[late])), said_alike(kind, similar))
                    for soon, late, kind, similar in shown[:EXAMPLES]
                ),
                test_ids=look.test_ids(rows[[*same, *(first[g] for g in near)]]),
            )
        )
    return out


def _likest_earlier(
    twins: duplicates.Twins, first: Mapping[int, int], kind: Likeness
) -> dict[int, tuple[int, float]]:
    """For groups of a part (`first`: their first rows) the likest group that stood earlier in it.

    Only those alike in this way, each with the similarity.
    """
    out: dict[int, tuple[int, float]] = {}
    at = twins.kind == kind
    for (a, b), similar in zip(
        twins.pairs[at].tolist(), twins.similarity[at].tolist(), strict=True
    ):
        if a in first and b in first:
            late, soon = (a, b) if first[a] > first[b] else (b, a)
            if similar > out.get(late, (0, 0.0))[1]:
                out[late] = (soon, similar)
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
