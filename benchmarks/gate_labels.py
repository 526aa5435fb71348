"""Are doubtful labels, languages and give-aways what the data gate says they are?

    python benchmarks/gate_labels.py                    # every table
    python benchmarks/gate_labels.py --only giveaways   # one of doubts, languages, giveaways

Real data (../shared/data, or TUNELAB_DATA) and the bundled reviews. With `--ratings FILE` lines of
number, rating and text (VADER's `movieReviewSnippets_GroundTruth.txt`, inside the source package of
vaderSentiment 3.3.2) become five stars; where Debian's `apt-cache` is, packages and their sections
are data of more than fifty classes.

Doubts: labels are flipped, to any class or (another kind than the gate plants) to the next class,
and from every second class four times as often as from the others. A label that was wrong before
counts as right, so precision is understated. A list is held to what it says of itself, less two
standard errors. Languages: whatever is called foreign in English data is printed, to be read.
Give-aways: each is planted at three strengths; then labels are permuted.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from _measure import shared_data
from tunelab import data
from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.data import duplicates
from tunelab.data.gate.doubts import doubtful_labels
from tunelab.data.gate.labels import out_of_fold
from tunelab.data.gate.texts import LEAST_WORDS_TO_NAME_LANGUAGE, languages
from tunelab.data.gate.values import bag_of

Labelled = tuple[str, list[str], np.ndarray]
NOISE = (0.0, 0.02, 0.05, 0.1, 0.2)
SENTENCES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "languages.tsv"


# --- data -----------------------------------------------------------------------------------


def every_data(ratings: Path | None, most: int) -> Iterator[Labelled]:
    """Name, texts and labels of each, at most so many rows, drawn with a fixed seed."""
    root = shared_data().parent
    for source in ("demo", "rotten_tomatoes", "sst2", "imdb_3k", "emotion", "demo:stars"):
        place = source if source.startswith("demo") else root / source
        if source.startswith("demo") or Path(place).exists():
            found = data.load(DataSpec(str(place)))
            splits = list(found.parts.values())
            texts = [t for s in splits for t in s.texts]
            yield _some(source, texts, np.concatenate([s.labels for s in splits]), most)
    if ratings is not None:
        rows = [r.split("\t", 2) for r in ratings.read_text("utf-8", "replace").splitlines()]
        stars = np.digitize([float(r[1]) for r in rows], [-1.8, -0.6, 0.6, 1.8])
        yield _some("five stars", [r[2] for r in rows], stars, min(most, 4000))
    sections = debian_sections()
    if sections is not None:
        yield _some(*sections, most)


def debian_sections() -> Labelled | None:
    """Short descriptions of packages, and the section each is filed under."""
    try:
        said = subprocess.run(
            ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    texts, names = [], []
    for package in said.stdout.split("\n\n"):
        fields = dict(x.split(": ", 1) for x in package.splitlines() if ": " in x)
        text = fields.get("Description-en") or fields.get("Description")
        if text and "Section" in fields:
            texts.append(text)
            names.append(fields["Section"])
    return "sections", texts, np.unique(names, return_inverse=True)[1]


def _some(name: str, texts: list[str], labels: np.ndarray, most: int) -> Labelled:
    rows = np.sort(np.random.default_rng(0).permutation(len(texts))[:most])
    rows = rows[np.bincount(labels[rows])[labels[rows]] >= 8]
    return name, [texts[i] for i in rows], np.unique(labels[rows], return_inverse=True)[1]


# --- doubtful labels ------------------------------------------------------------------------


def flipped(labels: np.ndarray, share: float, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Labels with noise: to "any" other class, or to the "next" and from odd classes mostly."""
    k = int(labels.max()) + 1
    if kind == "any":
        wrong = rng.random(len(labels)) < share
        return np.where(wrong, (labels + rng.integers(1, k, len(labels))) % k, labels)
    wrong = rng.random(len(labels)) < share * np.where(labels % 2, 1.6, 0.4)
    return np.where(wrong, (labels + 1) % k, labels)


def doubts(ratings: Path | None, rows: int, seeds: int) -> bool:
    print(
        "| data | classes | noise | telling | listed | said | right | kept |\n" + "|---" * 8 + "|"
    )
    kept = True
    for name, texts, truth in every_data(ratings, rows):
        twins = duplicates.find_twins(texts)
        bag = bag_of(twins)
        k = int(truth.max()) + 1
        for share, kind in [(s, kind) for kind in ("any", "next") for s in NOISE]:
            if kind == "next" and not share:
                continue
            for seed in range(seeds if k < 20 else 1):
                labels = flipped(truth, share, kind, np.random.default_rng(seed))
                if np.bincount(labels, minlength=k).min() < 5:
                    continue
                found = doubtful_labels(labels, out_of_fold(twins, bag, labels, k))
                wrong = (labels != truth)[found.rows]
                holds = _holds(wrong, found.precision)
                kept &= holds
                right = f"{wrong.mean():.0%}" if len(wrong) else "-"
                print(
                    f"| {name} | {k} | {share:.0%} {kind} | {found.telling:.3f} | {len(wrong):,} | "
                    f"{found.precision:.0%} | {right} | {'yes' if holds else 'NO'} |",
                    flush=True,
                )
    return kept


def _holds(wrong: np.ndarray, said: float) -> bool:
    if not len(wrong):
        return True
    share = wrong.mean()
    return bool(share >= said - 2 * np.sqrt(max(share * (1 - share), 0.01) / len(wrong)))


# --- languages ------------------------------------------------------------------------------


def named(texts: list[str]) -> list[str | None]:
    twins = duplicates.find_twins(texts)
    of_group = languages(twins, bag_of(twins))
    return [of_group[g] for g in twins.group]


def foreign() -> bool:
    rows = [line.split("\t") for line in SENTENCES.read_text("utf-8").splitlines()]
    got = named([text for _, text in rows])
    print(
        "| language | sentences | of six words or more | named | named wrongly |\n"
        + "|---" * 5
        + "|"
    )
    wrongly = 0
    for language in dict.fromkeys(x for x, _ in rows):
        own = [(t, g) for (x, t), g in zip(rows, got, strict=True) if x == language]
        long_enough = sum(len(t.split()) >= LEAST_WORDS_TO_NAME_LANGUAGE for t, _ in own)
        wrong = sum(g not in (None, language) for _, g in own)
        wrongly += wrong
        right = sum(g == language for _, g in own)
        print(f"| {language} | {len(own)} | {long_enough} | {right} | {wrong} |")
    for name, texts, _ in every_data(None, 100_000):
        called = [(g, t) for g, t in zip(named(texts), texts, strict=True)]
        others = [(g, t) for g, t in called if g not in (None, "English")]
        print(f"\n{name}: {len(others)} of {len(texts):,} called foreign")
        for language, text in others:
            print(f"    {language}: {text[:90]}")
    return wrongly == 0


# --- give-aways -----------------------------------------------------------------------------

Planter = Callable[[Dataset, np.ndarray], Dataset]


def _with_texts(change: Callable[[str], str]) -> Planter:
    def plant(dataset: Dataset, marked: np.ndarray) -> Dataset:
        s = dataset.train
        texts = tuple(change(t) if m else t for t, m in zip(s.texts, marked, strict=True))
        return replace(dataset, train=Split(s.ids, texts, s.labels))

    return plant


def _missing(dataset: Dataset, marked: np.ndarray) -> Dataset:
    s = dataset.train
    column = {"note": tuple(f"word {i * 37 % 901}" if m else None for i, m in enumerate(marked))}
    return replace(dataset, train=Split(s.ids, s.texts, s.labels, column))


def _odd_ids(dataset: Dataset, marked: np.ndarray) -> Dataset:
    s = dataset.train
    numbers = np.random.default_rng(1).permutation(20_000)[: len(s)]
    ids = tuple(f"r:{2 * n + int(m)}" for n, m in zip(numbers, marked, strict=True))
    return replace(dataset, train=Split(ids, s.texts, s.labels))


def _ordered(places: Callable[[np.ndarray], np.ndarray]) -> Planter:
    def plant(dataset: Dataset, marked: np.ndarray) -> Dataset:
        s = dataset.train
        order = np.empty(len(s), dtype=np.int64)
        order[np.argsort(places(np.arange(len(s))), kind="stable")] = np.argsort(
            marked, kind="stable"
        )
        texts = tuple(s.texts[i] for i in order)
        return replace(dataset, train=Split(tuple(s.ids[i] for i in order), texts, s.labels[order]))

    return plant


PLANTERS: dict[str, tuple[Planter, str]] = {
    "all capitals": (_with_texts(str.upper), "letter case"),
    "final mark": (_with_texts(lambda t: t.rstrip(" .!?") + " !"), "last character"),
    "missing text": (_with_texts(lambda _: ""), "missing text"),
    "missing column": (_missing, "column note"),
    "parity of ids": (_odd_ids, "row ids"),
    "every other row": (_ordered(lambda i: i % 2), "row order"),
    "sorted rows": (_ordered(lambda i: i), "row order"),
}


def shuffled(texts: list[str], labels: np.ndarray, rows: int, seed: int) -> Dataset:
    """So many rows in a random order, nearly all in train, with ids that say nothing."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))[:rows]
    ids = rng.permutation(10 * len(texts))[: len(order)]
    cuts = [0, len(order) - 20, len(order) - 10, len(order)]
    parts = [
        Split(
            tuple(f"r:{i}" for i in ids[a:b]),
            tuple(texts[i] for i in order[a:b]),
            labels[order[a:b]],
        )
        for a, b in itertools.pairwise(cuts)
    ]
    names = tuple(str(c) for c in range(int(labels.max()) + 1))
    return replace(
        data.load(DataSpec("demo")),
        label_names=names,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
    )


def places_named(dataset: Dataset) -> set[str]:
    return {f.where for f in data.inspect(dataset, ["surface"]).findings}


def giveaways(ratings: Path | None, permutations: int) -> bool:
    every = {name: (texts, labels) for name, texts, labels in every_data(ratings, 20_000)}
    print("| planted | rows | 100% | 90% | 75% |\n" + "|---" * 5 + "|")
    texts, labels = every.get("rotten_tomatoes", every["demo"])
    good = True
    for (name, (plant, where)), rows in [
        (p, r) for p in PLANTERS.items() for r in (300, 1500, 5000)
    ]:
        hits = []
        for strength in (1.0, 0.9, 0.75):
            got = 0
            for seed in range(5):
                dataset = shuffled(texts, labels, rows, seed)
                own = dataset.train.labels.astype(bool)
                coin = np.random.default_rng(seed).random(len(own)) < strength
                got += where in places_named(plant(dataset, np.where(coin, own, ~own)))
            hits.append(got)
        good &= min(hits) == 5
        print(f"| {name} | {rows} | " + " | ".join(f"{h} of 5" for h in hits) + " |", flush=True)
    print("\n| data | named as they are | named with labels permuted |\n|---|---|---|")
    for name, (texts, labels) in every.items():
        dataset = shuffled(texts, labels, 1000, 0)
        rng = np.random.default_rng(0)
        false = Counter[str]()
        for _ in range(permutations):
            s = dataset.train
            mixed = Split(s.ids, s.texts, rng.permutation(s.labels))
            false["any"] += bool(places_named(replace(dataset, train=mixed)))
        good &= false["any"] <= 0.05 * permutations
        now = ", ".join(sorted(places_named(dataset))) or "nothing"
        print(f"| {name} | {now} | {false['any']} of {permutations} |", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("doubts", "languages", "giveaways"))
    parser.add_argument("--ratings", type=Path)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--permutations", type=int, default=200)
    given = parser.parse_args()
    goals = {
        "doubts": (
            "what is listed is at least as often wrong as said, less two standard errors",
            lambda: doubts(given.ratings, given.rows, given.seeds),
        ),
        "languages": ("no sentence is named wrongly", foreign),
        "giveaways": (
            "all planted are named; with permuted labels at most 5% of tables name anything",
            lambda: giveaways(given.ratings, given.permutations),
        ),
    }
    for name, (goal, measure) in goals.items():
        if given.only in (None, name):
            print(f"\n## {name}\n")
            print(f"\ngoal: {goal}: {'met' if measure() else 'MISSED'}")


if __name__ == "__main__":
    main()
