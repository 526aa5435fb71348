"""Checks of texts that stand in two parts, repeat, or have two labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunelab.core.values import Dataset, Split
from tunelab.core.words import rows_word, short
from tunelab.data import duplicates
from tunelab.data.gate.values import (
    EXAMPLES,
    PARTS,
    DatasetView,
    Example,
    Finding,
    Floats,
    Gate,
    Ints,
    RowRef,
)

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
                        RowRef(
                            "train",
                            dataset.train.ids[j],
                            train_label,
                            short(dataset.train.texts[j]),
                        ),
                        RowRef(
                            f"{other.name} {part}",
                            held.ids[i],
                            other.label_names[int(held.labels[i])],
                            short(held.texts[i]),
                        ),
                    ),
                    said_alike(found.similarity[i]),
                )
            )
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


def joined_leaks(first: Gate, others: Sequence[Gate]) -> Gate:
    """The gate of a first fold of a data set, with the leaks of all its folds together, and texts
    with more than one label wherever they are tested.
    """
    gates = (first, *others)
    out = []
    for where in dict.fromkeys(f.where for g in gates for f in g.of("leak")):
        reference, _, part = where.partition("/")
        found = [f for g in gates for f in g.of("leak", where)]
        out.append(
            leak_finding(
                where,
                count=sum(f.count for f in found),
                of=sum(g.sizes[part] for g in gates),
                same=int(sum(f.numbers["same"] for f in found)),
                examples=found[0].examples,
                ids=tuple(dict.fromkeys(i for f in found for i in f.test_ids)),
                place=f"the {part} parts of {len(gates)} folds",
                advice=found[0].advice,
                reference=reference,
                torn=int(sum(f.numbers.get("other_label", 0) for f in found)),
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
