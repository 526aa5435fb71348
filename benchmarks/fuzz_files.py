"""Mutated study files and data files: each is read, or refused in a line, within bounds.

    python benchmarks/fuzz_files.py --cases 2000 --seed 1
    python benchmarks/fuzz_files.py --cases 20000 --keep crashes

A case is a good file with some bytes or values changed. What counts: how each ended, and what no
file may do: end in another error than ours, in more than one line of a data file's fault, with a
control character in its message, take longer than SECONDS, or more memory than MEGABYTES more than
before. `tests/unit/benchmarks/test_fuzz_files.py` runs a sample. Exit code 1 where any case does.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tunelab import data
from tunelab.core.errors import TunelabError
from tunelab.core.values import DataSpec
from tunelab.data import behaviour
from tunelab.study import resolve

SECONDS = 20
MEGABYTES = 1_500
LONGEST_MESSAGE = 20_000

# What is put into texts: separators, marks of other kinds of file, numbers that are none.
TOKENS = [
    b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\t",
    b";", b"|", b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"Infinity", b"1e999", b"9" * 5000,
    b"\\ud800", b"\\u0000", b"true", b"[]", b"{}", b"sep=;\n", b"text,", b"label,", b"\x1b[31m",
    b"\xe2\x80\xa8", b"\x85", b"\x0c", b"\x1a", b"[" * 3000, b"-1", b"0.5", b"PK\x03\x04",
    b"\x1f\x8b", b"=1+1", b", \"", b"a|b", b"&a [*a]", b"*a", b"<<: ", b"? ", b"!!int ", b"- ",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 2**70, -(2**70), 0.0, 1e308, float("nan"), float("inf"), "",
    " ", "a", "\0", "\x1b[31m", "a" * 3000, "1e-4", "0x10", "off", "~", "[1", "../..", "none",
    "auto", [], [[]], [None], [1, "a"], {}, {"name": "lora"}, {"name": None}, {1: 2}, {None: None},
    {"low": 1, "high": 0}, [{}], b"abc", {"a": {"b": {"c": 1}}}, ["svm-tfidf"] * 50, "lora",
    {"budget": -1}, {"source": {}}, [[[1]]], 10**12, list(range(2000)),
]  # fmt: skip
STUDY: dict[str, Any] = {
    "data": {"source": "demo", "subset": 60, "text_column": "text", "quoting": "none",
             "drop_classes": ["a"], "min_rows_per_class": 2, "join_labels": True},
    "methods": ["svm-tfidf", {"name": "lora", "r": [4, 8], "label": "x", "tune": {"r": [1, 2]}}],
    "training": {"num_train_epochs": 1}, "seeds": [0, 1], "metric": "accuracy",
    "tuning": {"budget": 3, "seeds": 2, "space": {"r": [1, 2]}}, "train_sizes": [10, "all"],
    "test_on": ["demo"], "budget": "20m", "jobs": "auto", "folds": "off", "report_to": "none",
}  # fmt: skip
SUITE: dict[str, Any] = {
    "name": "n", "labels": {"positive": ["good"]}, "words": {"noun": ["film", "plot"]},
    "tests": [
        {"test": "t", "capability": "c", "kind": "minimum", "templates": ["a {noun}"],
         "expect": "positive", "cases": 3},
        {"test": "u", "kind": "invariance", "templates": ["a {noun}"], "vary": "noun"},
        {"test": "v", "kind": "direction", "templates": ["a"], "expect": "positive", "add": ["b"]},
    ],
}  # fmt: skip


# --- good files -----------------------------------------------------------------------------

ROWS = [(f"the {('film', 'plot')[i % 3 % 2]} number {i} is, all told, {w}", w)
        for i, w in enumerate(["good", "bad", "good", "dull"] * 15)]  # fmt: skip


def good_files() -> list[tuple[str, bytes]]:
    """Endings and contents of data files that are read."""
    csv = "text,label,n\n" + "".join(f'"{t}",{k},{i}\n' for i, (t, k) in enumerate(ROWS))
    lines = "\n".join(json.dumps({"text": t, "label": k}) for t, k in ROWS)
    nested = json.dumps({"data": [{"text": t, "label": k, "x": [1]} for t, k in ROWS]})
    table = pa.table({"text": [t for t, _ in ROWS], "label": [k for _, k in ROWS]})
    numbers = table.append_column("n", pa.array([[1], None] * 30))
    arrow = io.BytesIO()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    kinds = [
        (".csv", csv.encode()), (".tsv", csv.replace(",", "\t").encode()),
        (".jsonl", lines.encode()), (".json", nested.encode()),
        (".csv.gz", gzip.compress(csv.encode())), (".txt", "\n".join(t for t, _ in ROWS).encode()),
        (".arrow", arrow.getvalue()),
    ]  # fmt: skip
    for t, options in ((table, {}), (numbers, {"compression": "zstd", "row_group_size": 7}),
                       (table, {"use_dictionary": False, "compression": "none"})):  # fmt: skip
        stream = io.BytesIO()
        pq.write_table(t, stream, **options)
        kinds.append((".parquet", stream.getvalue()))
    return kinds


# --- mutations ------------------------------------------------------------------------------


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes with one to eight places changed, doubled, cut or filled."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at, how = rng.randrange(len(out) + 1), rng.random()
        if how < 0.3 and out:
            out[at % len(out)] = rng.randrange(256)
        elif how < 0.6:
            out[at:at] = rng.choice(TOKENS)
        elif how < 0.75:
            del out[at : at + rng.randint(1, 60)]
        elif how < 0.88:
            begin = rng.randrange(len(out) + 1)
            out[at:at] = out[begin : begin + rng.randint(1, 200)]
        else:
            out = out[:at] if how < 0.95 else out[at:]
    return bytes(out)


def changed_values(value: Any, rng: random.Random) -> Any:
    """A tree of values with one of them replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {**value, rng.choice(["x", 1, None, True, "name"]): rng.choice(VALUES)}
        return {**value, key: changed_values(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], changed_values(value[at], rng), *value[at + 1 :]]
    return rng.choice(VALUES)


def changed_yaml(tree: dict[str, Any], rng: random.Random) -> bytes:
    """A YAML file with values, or bytes, changed."""
    for _ in range(rng.randint(1, 3)):
        tree = changed_values(tree, rng) if isinstance(tree, dict) else tree
    text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    return changed_bytes(text, rng) if rng.random() < 0.4 else text


# --- running --------------------------------------------------------------------------------


@dataclass
class Tally:
    """How cases ended, and those that did what no file may do."""

    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[tuple[str, bytes, str]] = field(default_factory=list)
    slowest: float = 0.0

    def lines(self) -> list[str]:
        """What is said in the end."""
        ends = ", ".join(f"{n:,} {end}" for end, n in self.ends.most_common())
        out = [f"{sum(self.ends.values()):,} files: {ends}", f"slowest: {self.slowest:.1f} s"]
        out.append(f"other errors, or out of bounds: {len(self.wrong)}")
        return out + [f"  {name}: {what}" for name, _, what in self.wrong[:20]]


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Interrupt what takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def one_case(read: Callable[[Path], object], path: Path, tally: Tally) -> None:
    """Read one file and keep how that ended."""
    started, memory = time.perf_counter(), _megabytes()
    fault = ""
    try:
        with within(SECONDS):
            read(path)
        end = "read"
    except TunelabError as error:
        end, message = "refused", str(error)
        lines = message.count("\n") + 1
        if len(message) > LONGEST_MESSAGE or (path.suffix != ".yaml" and lines > 1):
            fault = f"a message of {len(message):,} characters in {lines} lines"
    except Exception as error:  # the very thing that is looked for
        end = "other error"
        at = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error}"[:300]
    if _megabytes() - memory > MEGABYTES:
        fault = fault or f"{_megabytes() - memory:,.0f} MB"
    tally.ends[end] += 1
    tally.slowest = max(tally.slowest, time.perf_counter() - started)
    if fault:
        tally.wrong.append((path.name, path.read_bytes(), fault))


def _megabytes() -> float:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def read_texts_of(path: Path) -> None:
    """Read a file as `predict --file` does: all its windows."""
    file = data.open_texts(path)
    rows = sum(len(window.texts) for window in file.windows())
    if rows != file.rows:
        raise AssertionError(f"{rows} rows in windows, {file.rows} in the file")


def run(cases: int, seed: int, folder: Path) -> Tally:
    """So many mutated files of all kinds, half of them data."""
    rng, tally, files = random.Random(seed), Tally(), good_files()  # noqa: S311  no secret
    for i in range(cases):
        kind = i % 4
        if kind < 2:
            ending, content = rng.choice(files)
            inner = ending.endswith(".gz") and rng.random() < 0.5
            changed = (
                gzip.compress(changed_bytes(gzip.decompress(content), rng))
                if inner
                else changed_bytes(content, rng)
            )
            path = folder / f"case{ending}"
            path.write_bytes(changed)
            spec = DataSpec(
                str(path),
                on_bad_rows=rng.choice(["fail", "drop"]),
                quoting=rng.choice(["auto", "double", "none"]),
                join_labels=rng.random() < 0.5,
            )
            texts = kind == 1 or ending == ".txt"
            one_case(read_texts_of if texts else lambda _, s=spec: data.load(s), path, tally)
        else:
            path = folder / ("study.yaml" if kind == 2 else "suite.yaml")
            path.write_bytes(changed_yaml(STUDY if kind == 2 else SUITE, rng))
            read = behaviour.load_suite
            one_case(read if kind == 3 else lambda p: resolve.resolve_study(p, {}), path, tally)
    return tally


def main() -> None:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that did what none may do")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(given.cases, given.seed, Path(folder))
    print("\n".join(tally.lines()))
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        for i, (name, content, _) in enumerate(tally.wrong):
            (given.keep / f"{i}-{name}").write_bytes(content)
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
