"""Does the data gate find what was planted, and nothing else? How long does it take?

    python benchmarks/gate.py            # all figures, as written in docs/log.md
    python benchmarks/gate.py --rows 100000 --words 20 --only speed

Planted in real texts (the bundled reviews, and ../shared/data or TUNELAB_DATA where it is there)
that no other is like, with fixed seeds: copies that differ in marks, in words, in typos, in their
order; halves of a text, in another and alone; and texts that only look alike (the same words in
another order, every other word, a phrase of three words). "twins" prints which share of each is
found, by the texts' length, "footers" how many clean rows are called leaks where footers stand
below many, each beside its goal. Recall and precision are of rows. Times are processor
seconds of one process with one thread. Labels, languages and give-aways: gate_labels.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunelab import data
from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.data import duplicates

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# --- planted copies -------------------------------------------------------------------------


def _marks(text: str, rng: np.random.Generator, _: list[str]) -> str:
    variants = (
        text.upper(),
        f"<p>{text}</p>",
        text.replace(" ", "  ") + "!!",
        text.strip(".") + " ",
    )
    return str(variants[rng.integers(len(variants))])


def _words(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    for _ in range(1 if len(words) < 20 else 2):
        i = int(rng.integers(len(words)))
        words[i] = str(rng.choice(pool))
    return " ".join(words)


def _dropped(text: str, rng: np.random.Generator, _: list[str]) -> str:
    words = text.split()
    del words[int(rng.integers(len(words)))]
    return " ".join(words)


def _added(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    words.insert(int(rng.integers(len(words))), str(rng.choice(pool)))
    return " ".join(words)


def _typos(text: str, rng: np.random.Generator, _: list[str]) -> str:
    letters = list(text)
    for _i in range(2):
        i = int(rng.integers(len(letters) - 1))
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def _cut(text: str, _rng: np.random.Generator, _: list[str]) -> str:
    words = text.split()
    return " ".join(words[: max(1, round(0.88 * len(words)))])


def _longer(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    return " ".join([text, *map(str, rng.choice(pool, 2))])


def _fifth(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    for i in rng.choice(len(words), max(1, round(0.2 * len(words))), replace=False):
        words[i] = str(rng.choice(pool))
    return " ".join(words)


def _swapped(text: str, _rng: np.random.Generator, _: list[str]) -> str:
    words = text.split()
    return " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


def _first_half(text: str, _rng: np.random.Generator, _: list[str]) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


def _last_half(text: str, _rng: np.random.Generator, _: list[str]) -> str:
    words = text.split()
    return " ".join(words[len(words) // 2 :])


def _half_and_new(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = _first_half(text, rng, pool).split()
    return " ".join([*words, *_some(rng, pool, len(text.split()) - len(words))])


def _within(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    many = len(text.split())
    before, after = _some(rng, pool, many // 2), _some(rng, pool, many)
    return " ".join([*before, text, *after])


def _prefix(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    return " ".join([text[:100], *_some(rng, pool, len(text.split()))])


def _some(rng: np.random.Generator, pool: list[str], many: int) -> list[str]:
    """So many words of the pool, one after another."""
    start = int(rng.integers(max(1, len(pool) - many)))
    return pool[start : start + many]


COPIES: dict[str, Callable[[str, np.random.Generator, list[str]], str]] = {
    "marks": _marks,
    "words replaced": _words,
    "word dropped": _dropped,
    "word added": _added,
    "typos": _typos,
    "end cut": _cut,
    "end added": _longer,
    "a fifth replaced": _fifth,
    "halves swapped": _swapped,
}


PARTS_OF = {
    "first half": _first_half,
    "last half": _last_half,
    "half, then new": _half_and_new,
    "within another": _within,
    "prefix of 100": _prefix,
}


def _shuffled(text: str, rng: np.random.Generator, _: list[str]) -> str:
    return " ".join(map(str, rng.permutation(text.split())))


def _template(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    return " ".join(w if i % 2 else str(rng.choice(pool)) for i, w in enumerate(words))


def _phrase(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words, new = text.split(), _some(rng, pool, len(text.split()))
    start = int(rng.integers(len(words) - 2))
    return " ".join([*new[: len(new) // 2], *words[start : start + 3], *new[len(new) // 2 :]])


LOOK_ALIKES = {"shuffled": _shuffled, "every other word": _template, "phrase of three": _phrase}


@dataclass(frozen=True)
class Planted:
    """Texts of a train and a test part; `truth` (n_test,) is the train row copied, -1 for none."""

    train: list[str]
    test: list[str]
    truth: np.ndarray
    kinds: list[str]


def base_texts(least_words: int = 8) -> list[str]:
    """The bundled reviews that no other is like, of so many words at least."""
    dataset = data.load(DataSpec("demo:stars"))
    texts = [t for s in dataset.parts.values() for t in s.texts if len(t.split()) >= least_words]
    return alone(texts)


def alone(texts: list[str]) -> list[str]:
    """The texts that no other is like."""
    twins = duplicates.find_twins(texts)
    kept = np.ones(len(twins.first), dtype=bool)
    kept[twins.pairs.ravel()] = False
    return [texts[i] for i in twins.first[kept]]


def plant(texts: list[str], seed: int, share: float = 0.3) -> Planted:
    """Cut texts in train and test, and plant copies and look-alikes of train rows in test."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))
    half = int(len(texts) * 0.7)
    train = [texts[i] for i in order[:half]]
    test, truth, kinds = [texts[i] for i in order[half:]], [-1] * (len(texts) - half), []
    kinds = ["own"] * len(test)
    pool = sorted({w for t in texts for w in t.split()})
    sources = rng.permutation(half)
    makers = {**COPIES, **LOOK_ALIKES}
    for n, name in enumerate(list(makers) * int(share * half / len(makers))):
        source = int(sources[n % half])
        test.append(makers[name](train[source], rng, pool))
        truth.append(source if name in COPIES else -1)
        kinds.append(name)
    return Planted(train, test, np.array(truth), kinds)


def score_leaks(planted: Planted) -> dict[str, float]:
    """Recall and precision of leaked test rows, and recall by kind of copy."""
    found = duplicates.match(planted.train, planted.test)
    true = planted.truth >= 0
    right = found.found & true & (found.row == planted.truth)
    out = {
        "recall": float(right.sum() / true.sum()),
        "precision": float((found.found & true).sum() / max(1, found.found.sum())),
    }
    kinds = np.array(planted.kinds)
    for kind in COPIES:
        out[f"recall of {kind}"] = float(right[kinds == kind].mean())
    for kind in LOOK_ALIKES:
        out[f"found of {kind}"] = float(found.found[kinds == kind].mean())
    return out


def score_repeats(planted: Planted) -> dict[str, float]:
    """Recall and precision of pairs within one list: train and test in one."""
    twins = duplicates.find_twins([*planted.train, *planted.test])
    n = len(planted.train)
    pairs = {tuple(sorted(p)) for p in twins.pairs.tolist()}
    true = [
        (int(twins.group[s]), int(twins.group[n + i]))
        for i, s in enumerate(planted.truth)
        if s >= 0
    ]
    hit = [a == b or tuple(sorted((a, b))) in pairs for a, b in true]
    # Copies of one source are near each other too, so a pair is right where both have one source.
    source: dict[int, int] = {}
    for i, s in enumerate(planted.truth):
        if s >= 0:
            source[int(twins.group[n + i])] = int(twins.group[s])
    good = [source.get(a, a) == source.get(b, b) for a, b in pairs]
    return {"recall": float(np.mean(hit)), "precision": float(np.mean(good))}


# --- what is found of each kind, and what is called a leak below footers ---------------------

BANDS = ((8, 8), (9, 11), (12, 15), (16, 25), (26, 50), (51, 120), (121, 400))
LEAST = {"first half": 12, "last half": 12, "half, then new": 12}  # half of fewer is a phrase
RECALL, FALSE = 0.9, 0.01
FOOTERS = (
    "Sent from my iPhone",
    "Best regards, Anna Schmidt, Head of Customer Care, Example Limited, Berlin",
    "This message and any attachment are confidential and may be privileged or otherwise protected "
    "from disclosure. If you are not the intended recipient, please telephone or email the sender "
    "and delete this message and any attachment from your system.",
)


def real_texts() -> dict[str, list[str]]:
    """Texts by data set: the bundled reviews, and those of ../shared/data that are there."""
    import os

    import pandas as pd

    folder = Path(os.environ.get("TUNELAB_DATA", SHARED))
    out = {"demo": base_texts(1)}
    for name in ("rotten_tomatoes", "emotion", "sst2", "imdb_3k"):
        frames = [pd.read_parquet(f) for f in sorted((folder / name).glob("*.parquet"))]
        if frames:
            texts = pd.concat(frames)
            column = "sentence" if "sentence" in texts else "text"
            found = [str(t) for t in texts[column]]
            out[name] = found[:20_000] if name == "sst2" else found
    return out


def found_of(texts: list[str], low: int, high: int, many: int, seed: int = 0) -> dict[str, float]:
    """The share of planted texts of each kind that is found, of sources of low to high words."""
    rng = np.random.default_rng(seed)
    sources = [i for i, t in enumerate(texts) if low <= len(t.split()) <= high]
    sources = [int(i) for i in rng.permutation(sources)[:many]]
    pool = [w for i in rng.permutation(len(texts))[:4000] for w in texts[i].split()]
    rng.shuffle(pool)  # words as they stood would bring passages of other texts
    out = {}
    for name, make in {**COPIES, **PARTS_OF, **LOOK_ALIKES}.items():
        some = [i for i in sources if name != "prefix of 100" or len(texts[i]) >= 130]
        if len(some) < 50 or low < LEAST.get(name, 0):
            continue
        found = duplicates.match(texts, [make(texts[i], rng, pool) for i in some])
        right = found.row == np.array(some) if name not in LOOK_ALIKES else found.found
        out[name] = float(right.mean())
    return out


def show_found(many: int) -> None:
    """Print a table a data set: kinds by length, and whether the goal is met."""
    for name, whole in real_texts().items():
        texts = alone(whole)
        cells = {band: found_of(texts, *band, many) for band in BANDS}
        bands = [b for b in BANDS if cells[b]]
        print(
            f"\n{name}: {len(texts):,} texts; found of up to {many} planted, by words of the text"
        )
        print("| kind | " + " | ".join(f"{a}-{b}" for a, b in bands) + " | goal |")
        print("|---" * (len(bands) + 2) + "|")
        for kind in (*COPIES, *PARTS_OF, *LOOK_ALIKES):
            shares = [cells[b].get(kind) for b in bands]
            shown = ["" if s is None else f"{s:.1%}" for s in shares]
            goal = f"at most {FALSE:.0%}" if kind in LOOK_ALIKES else f"at least {RECALL:.0%}"
            print(f"| {kind} | {' | '.join(shown)} | {goal} |")


def below(texts: list[str], footers: Sequence[str], share: float, place: str) -> list[str]:
    """The texts, a footer (or header, or both) with so many of them."""
    rng = np.random.default_rng(0)
    out = []
    for text in texts:
        extra = footers[int(rng.integers(len(footers)))] if rng.random() < share else ""
        above = extra if place != "footer" else ""
        out.append(f"{above}\n{text}\n{extra if place != 'header' else ''}")
    return out


def show_footers() -> None:
    """Print how many rows of a fifth of clean texts are called leaks of the others, in per cent."""
    many = [f"{FOOTERS[1]} No. {i}, {w}" for i, w in enumerate(FOOTERS[2].split()[:20])]
    kinds = {
        "none": (FOOTERS[:1], 0.0, "footer"),
        "short": (FOOTERS[:1], 0.5, "footer"),
        "middle": (FOOTERS[1:2], 0.2, "footer"),
        "long": (FOOTERS[2:], 0.5, "footer"),
        "long with 3%": (FOOTERS[2:], 0.03, "footer"),
        "three": (FOOTERS, 0.66, "footer"),
        "twenty alike": (many, 0.8, "footer"),
        "header": (FOOTERS[2:], 0.5, "header"),
        "header and footer": (FOOTERS, 0.5, "both"),
        "with all": (FOOTERS[2:], 1.0, "footer"),
    }
    print(f"\nclean rows called leaks, by footers (goal: at most {FALSE:.0%})")
    print("| data | " + " | ".join(kinds) + " |\n" + "|---" * (len(kinds) + 1) + "|")
    for name, whole in real_texts().items():
        plain, cells = alone(whole), []
        for footers, share, place in kinds.values():
            texts = below(plain, footers, share, place)
            found = duplicates.match(texts[: len(texts) * 4 // 5], texts[len(texts) * 4 // 5 :])
            cells.append(f"{found.found.mean():.2%}")
        print(f"| {name} | {' | '.join(cells)} |")


# --- speed ----------------------------------------------------------------------------------


def synthetic(rows: int, words: int, seed: int) -> Dataset:
    """Labelled texts of Zipf words: about `words` each, two classes that differ in some of them."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    names = np.array(
        ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(30_000)], dtype=object
    )
    weights = 1 / np.arange(3, 30_003)
    weights /= weights.sum()
    labels = rng.integers(0, 2, rows)
    lengths = np.maximum(2, rng.poisson(words, rows))
    draws = rng.choice(len(names), int(lengths.sum()), p=weights)
    texts, start = [], 0
    for n, label in zip(lengths, labels, strict=True):
        some = draws[start : start + n]
        some[rng.random(n) < 0.04] = 5000 + 50 * label + rng.integers(0, 50)
        texts.append(" ".join(names[some]))
        start += n
    for i in rng.choice(rows, rows // 50, replace=False):
        texts[i] = _words(texts[int(rng.integers(rows))], rng, list(names[:500]))
    cuts = (0, int(0.8 * rows), int(0.9 * rows), rows)
    parts = [
        Split(tuple(f"r:{i}" for i in range(a, b)), tuple(texts[a:b]), labels[a:b])
        for a, b in itertools.pairwise(cuts)
    ]
    empty = data.load(DataSpec("demo"))
    return Dataset(
        "synthetic", None, ("no", "yes"), *parts, "0" * 64, "text", "label", (), empty.duplicates
    )


def speed(rows: int, words: int) -> dict[str, float]:
    import resource

    dataset = synthetic(rows, words, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found = data.inspect(dataset)
    return {
        "rows": rows,
        "words": words,
        "characters": sum(len(t) for s in dataset.parts.values() for t in s.texts),
        "processor seconds": time.process_time() - cpu,
        "wall seconds": time.perf_counter() - wall,
        "peak memory, MB above the texts": (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        )
        / 1000,
        **{f"s {k}": v for k, v in found.seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--planted", type=int, default=300, help="texts of each kind and length")
    parser.add_argument("--only", choices=("leaks", "twins", "footers", "speed"))
    given = parser.parse_args()

    def show(name: str, values: dict[str, float]) -> None:
        print(json.dumps({name: {k: round(v, 3) for k, v in values.items()}}))

    if given.only in (None, "leaks"):
        texts = base_texts()
        print(f"{len(texts)} base texts")
        for seed in range(5):
            planted = plant(texts, seed)
            show(f"leaks, seed {seed}", score_leaks(planted))
            show(f"repeats, seed {seed}", score_repeats(planted))
    if given.only in (None, "twins"):
        show_found(given.planted)
    if given.only in (None, "footers"):
        show_footers()
    if given.only in (None, "speed"):
        show("speed", speed(given.rows, given.words))


if __name__ == "__main__":
    main()
