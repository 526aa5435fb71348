"""Does the data gate find what was planted, and nothing else? How long does it take?

    python benchmarks/gate.py            # all figures, as written in docs/log.md
    python benchmarks/gate.py --rows 100000 --words 20 --only speed

Planted in the bundled reviews, with fixed seeds: copies that differ in marks, in a word or two, in
typos, in their end; and texts that only look alike (half of the words shared, the same words in
another order, the same template). Recall and precision are of rows. Times are processor
seconds of one process with one thread. Labels, languages and give-aways: gate_labels.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunelab import data
from tunelab.core.values import Dataset, DataSpec, Split
from tunelab.data import duplicates

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


COPIES: dict[str, Callable[[str, np.random.Generator, list[str]], str]] = {
    "marks": _marks,
    "words replaced": _words,
    "word dropped": _dropped,
    "word added": _added,
    "typos": _typos,
    "end cut": _cut,
    "end added": _longer,
}


def _half(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    half = len(words) // 2
    return " ".join([*words[:half], *map(str, rng.choice(pool, len(words) - half))])


def _shuffled(text: str, rng: np.random.Generator, _: list[str]) -> str:
    return " ".join(map(str, rng.permutation(text.split())))


def _template(text: str, rng: np.random.Generator, pool: list[str]) -> str:
    words = text.split()
    return " ".join(w if i % 2 else str(rng.choice(pool)) for i, w in enumerate(words))


LOOK_ALIKES = {"half shared": _half, "shuffled": _shuffled, "every other word": _template}


@dataclass(frozen=True)
class Planted:
    """Texts of a train and a test part; `truth` (n_test,) is the train row copied, -1 for none."""

    train: list[str]
    test: list[str]
    truth: np.ndarray
    kinds: list[str]


def base_texts(least_words: int = 8) -> list[str]:
    """The bundled reviews that no other is near, of so many words at least."""
    dataset = data.load(DataSpec("demo:stars"))
    texts = [t for s in dataset.parts.values() for t in s.texts if len(t.split()) >= least_words]
    twins = duplicates.find_twins(texts, near=0.3)
    alone = np.ones(len(twins.first), dtype=bool)
    alone[twins.pairs.ravel()] = False
    return [texts[i] for i in twins.first[alone]]


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
    parser.add_argument("--only", choices=("leaks", "speed"))
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
    if given.only in (None, "speed"):
        show("speed", speed(given.rows, given.words))


if __name__ == "__main__":
    main()
