"""Broken bases and classifiers, by the thousand: each is refused in one line, or works.

    python benchmarks/fuzz_models.py [--cases 1200] [--seed 0] [--only config.json]

One or two values of a JSON file become others (of another type, negative, huge, gone), or bytes of
a weights' file do; a folder is then planned, looked into, or opened and asked for labels. Whatever
comes of it but an answer or a one-line error of tunelab's own is counted as a crash, by place.
"""

from __future__ import annotations

import argparse
import collections
import copy
import hashlib
import importlib.util
import json
import logging
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
# What a value becomes.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, -2, 1, 2**31, 2**63, 2**70, 1.5, float("nan"), float("inf"), "", "x", "evil",
    "\x00", "\ud800", [], [1], {}, {"a": 1}, [[1]], "../x", "a" * 5000, [None], 10**9,
)  # fmt: skip


# --- what is broken -------------------------------------------------------------------------


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values lie in JSON; of a list, in its first five entries."""
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value[:5]) if isinstance(value, list) else inner
    for key, item in inner:
        yield from places(item, (*above, key))


def broken_json(value: Any, rng: random.Random) -> tuple[Any, str]:
    """The value with one or two changes, and the changes in words."""
    value, said = copy.deepcopy(value), []
    for _ in range(rng.randint(1, 2)):
        found = list(places(value))
        if not found:
            break
        *way, last = rng.choice(found)
        holder = value
        for key in way:
            holder = holder[key]
        if isinstance(holder, dict) and rng.random() < 0.2:
            del holder[last]
            said.append(f"without {[*way, last]}")
        else:
            holder[last] = copy.deepcopy(rng.choice(ODD))
            said.append(f"{[*way, last]} = {str(holder[last])[:20]!r}")
    return value, ", ".join(said)


def broken_weights(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file with another header, another length of it, or other bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.random()
    if kind < 0.5:
        changed, said = broken_json(header, rng)
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body, said
    if kind < 0.6:
        other = rng.choice([0, 1, 7, length - 1, length + 1, 2**63, 2**64 - 1, len(content)])
        return struct.pack("<Q", other) + content[8:], f"a header of {other}"
    if kind < 0.7:
        return content[: rng.randrange(len(content))], "cut short"
    if kind < 0.8:
        return content + b"x" * rng.randint(1, 100), "bytes behind"
    at = 8 + rng.randrange(length)
    return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :], f"byte {at}"


def break_file(file: Path, rng: random.Random) -> str:
    """Change a file in its place, or take it away; what was done, in words."""
    if rng.random() < 0.03:
        file.unlink()
        return "gone"
    if file.suffix == ".onnx":
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content))
        content[at], said = rng.randrange(256), f"byte {at}"
    elif file.suffix == ".safetensors":
        content, said = broken_weights(file.read_bytes(), rng)
    else:
        value, said = broken_json(json.loads(file.read_text(encoding="utf-8")), rng)
        content = json.dumps(value).encode("utf-8", "surrogatepass")
    file.write_bytes(content)
    return said


# --- what is asked of it --------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A folder that works, the files that are broken in a copy, and what a copy is then asked."""

    folder: Path
    files: tuple[str, ...]
    ask: Callable[[Path, random.Random], object]


def plan(folder: Path, rng: random.Random) -> None:
    """What a study's plan asks of a base."""
    from tunelab.core.values import MethodSpec
    from tunelab.methods import check
    from tunelab.models import bases

    method = rng.choice(["lora", "svm", "full"])
    check(bases.resolve(str(folder)), MethodSpec(method, method, {"max_length": 16}))


def look(folder: Path, _: random.Random) -> None:
    """What `tunelab inspect model` asks of a base."""
    from tunelab.methods.inspection import inspect_base

    inspect_base(str(folder), "a good film")


def label(folder: Path, rng: random.Random) -> None:
    """Open a classifier and ask it; as tunelab sealed it, or without the manifest."""
    from tunelab.models.text_classifier import open_classifier

    if (folder / "adapter_config.json").exists() and rng.random() < 0.3:
        (folder / "tunelab.json").unlink(missing_ok=True)
    else:
        as_if_saved_so(folder)
    opened = open_classifier(folder)
    opened.predict(["a good film", "grim"])
    if (folder / "calibration.json").exists():
        opened.calibrated().predict(["grim"])


def list_it(folder: Path, _: random.Random) -> None:
    """What `tunelab adapters list` and `show` say of a classifier."""
    from tunelab import exporting

    exporting.find_artifacts(folder)
    exporting.show(folder)


def as_if_saved_so(folder: Path) -> None:
    """Write the hashes of what is there: it is not the checksums that shall refuse it."""
    path = folder / "tunelab.json"
    if not path.exists():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
        for name in manifest["files"]:
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                manifest["files"][name] = hashlib.sha256(content).hexdigest()
        path.write_bytes(json.dumps(manifest).encode("utf-8", "surrogatepass"))


def make_subjects(home: Path) -> list[Subject]:
    """A base, and a classifier of each kind on it."""
    sys.path.insert(0, str(ROOT / "tests"))
    import numpy as np

    from tiny import make_tiny, reviews
    from tunelab.core.artifact import seal_again
    from tunelab.core.values import Seeds, Split
    from tunelab.methods import METHODS, Task, fit_alone
    from tunelab.models import bases

    base = make_tiny(home / "base", "bert")
    texts = tuple(text for text, _ in reviews(18))
    rows = Split(tuple(map(str, range(18))), texts, np.arange(18) % 2)
    tokens = ("tokenizer.json", "tokenizer_config.json")
    files = ("model.safetensors", "config.json", *tokens)
    subjects = [Subject(base, files, plan), Subject(base, files, look)]
    own = {
        "lora": ("tunelab.json", "adapter_config.json", "adapter_model.safetensors", "config.json"),
        "full": ("tunelab.json", "config.json", "model.safetensors", *tokens),
        "svm": ("tunelab.json", "svm.safetensors"),
        "knn": ("tunelab.json", "head.safetensors"),
        "boosting": ("tunelab.json", "head.safetensors"),
        "svm-tfidf": ("tunelab.json", "svm.safetensors", "vocabulary.json", "calibration.json"),
    }
    for method, names in own.items():
        row = METHODS[method]
        few: dict[str, Any] = {} if method == "svm-tfidf" else {"max_length": 16}
        few |= {"num_train_epochs": 1} if row.adapt else {}
        on = bases.resolve(str(base)) if row.needs_base else None
        seeds = Seeds(1, 2, 3)
        task = Task(
            ("a", "b"), rows, rows, on, row.settings(**few), seeds, "accuracy", lambda _: None
        )
        (home / method).mkdir()
        fit_alone(row, task).classifier.save(home / method)
        if "calibration.json" in names:
            (home / method / "calibration.json").write_text('{"temperature": 1.5}')
            seal_again(home / method, {})
        subjects += [Subject(home / method, names, ask) for ask in (label, list_it)]
    return [*subjects, *exports_of(home)]


def exports_of(home: Path) -> list[Subject]:
    """The full model and the TF-IDF SVM as graphs, where they can be made and run."""
    from tunelab import exports

    subjects = []
    both = ("tunelab.json", "config.json")
    for method, file in (("full", "tokenizer.json"), ("svm-tfidf", "vocabulary.json")):
        out = home / f"{method}-onnx"
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
            exports.export(home / method, "onnx", out)
            files = (*both, file, "onnx/model.onnx")
            subjects += [Subject(out, files, label), Subject(out, both, list_it)]
    return subjects


class Endless(BaseException):
    """It took too long."""


def _too_long(*_: object) -> None:
    raise Endless(f"more than {SECONDS} s")


def ask(subject: Subject, folder: Path, rng: random.Random) -> str:
    """ "works", "refused", or the place of a crash."""
    from tunelab.core.errors import TunelabError
    from tunelab.models import bases, pretrained

    bases.resolve.cache_clear()
    bases._sha256.cache_clear()
    pretrained._skeleton.cache_clear()
    signal.alarm(SECONDS)
    try:
        subject.ask(folder, rng)
    except TunelabError as e:
        return "refused" if "\n" not in str(e) else f"crash: several lines: {e}"
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        at = [x for x in traceback.extract_tb(e.__traceback__) if "/tunelab/" in x.filename][-1]
        return f"crash: {type(e).__name__} in {Path(at.filename).name}:{at.lineno}"
    finally:
        signal.alarm(0)
    return "works"


def fuzz(cases: int, seed: int, only: str | None = None) -> dict[str, collections.Counter[str]]:
    """How so many broken folders end, by the file that was broken; a crash with an example."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _too_long)
    rng = random.Random(seed)  # noqa: S311  which damage is done is no secret
    ends: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    examples: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="tunelab-fuzz-") as scratch:
        subjects = make_subjects(Path(scratch))
        pairs = [(s, f) for s in subjects for f in s.files if only in {None, f, s.folder.name}]
        for _ in range(cases):
            subject, file = rng.choice(pairs)
            folder = Path(shutil.copytree(subject.folder, Path(scratch) / "broken"))
            said = break_file(folder / file, rng)
            end = ask(subject, folder, rng)
            shutil.rmtree(folder)
            ends[f"{subject.folder.name}/{file}"][end] += 1
            if end.startswith("crash") and end not in examples:
                examples.add(end)
                print(f"{end}: {subject.folder.name}/{file}: {said}", flush=True)
    logging.disable(logging.NOTSET)
    return ends


def main() -> None:
    """Print a table of how they end; exit code 1 for a crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a file, or a folder (base, lora, full, svm, svm-tfidf)")
    asked = parser.parse_args()
    ends = fuzz(asked.cases, asked.seed, asked.only)
    print("| file | refused in one line | works | crashes |\n|---|---|---|---|")
    crashes = 0
    for file, counts in sorted(ends.items()):
        bad = sum(n for end, n in counts.items() if end.startswith("crash"))
        print(f"| {file} | {counts['refused']} | {counts['works']} | {bad} |")
        crashes += bad
    print(f"{asked.cases:,} folders, {crashes} crashes")
    sys.exit(bool(crashes))


if __name__ == "__main__":
    main()
