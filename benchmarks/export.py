"""What an export costs and gains: python benchmarks/export.py [FOLDER]

Size, processor seconds in one thread, changed labels and the time of one text, of each form beside
the float32 graph, on the demo's validation and test texts (FOLDER: a classifier of them; else a
LoRA is trained). Ends with exit code 1 where no way to round gives at most 0.26 of the float
graph's size in at most 0.55 of its time with at most 3% of labels changed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tunelab
from tunelab.core.files import folder_bytes
from tunelab.exporting import export_classifier
from tunelab.exporting.agreement import JudgedTexts
from tunelab.models import exported

SIZE, SECONDS, CHANGED = 0.26, 0.55, 0.03
FORMS = ("onnx", "int8")
REPEATS = 3


def judged() -> JudgedTexts:
    """The demo's rows that nothing was trained on."""
    demo = tunelab.load_data("demo")
    parts = (demo.validation, demo.test)
    labels = np.concatenate([p.labels for p in parts])
    texts = tuple(t for p in parts for t in p.texts)
    return JudgedTexts(texts, labels, demo.train.texts, "the demo's validation and test rows")


def processor_seconds(folder: Path, texts: tuple[str, ...]) -> float:
    """Of all texts in one thread, the least of some times."""
    artifact = tunelab.load(folder).artifact
    graph = folder / str(artifact.manifest.get("graph"))
    one = exported.open_graph(artifact, exported.run_graph(graph, "onnx", threads=1))
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        one.scores(texts)
        times.append(time.process_time() - started)
    return min(times)


def milliseconds_of_one(folder: Path, texts: tuple[str, ...]) -> float:
    """Median of one text at a time, once it runs."""
    one = tunelab.load(folder).classifier
    times = []
    for text in texts[:50]:
        started = time.perf_counter()
        one.scores([text])
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def seconds_of_a_cold_text(folder: Path) -> float:
    """`tunelab predict` of one text, from nothing, the least of some times."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        command = [sys.executable, "-m", "tunelab", "predict", str(folder), "a quiet film"]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> int:
    """Print the figures; 1 where a bound is missed."""
    texts = judged()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "lora"
        if len(sys.argv) == 1:
            tunelab.fine_tune("demo", "lora", output_dir=source)
        rows, rungs = {}, ()
        for form in FORMS:
            made = export_classifier(source, form, root / form, texts, allow=True, tell=print)
            print(made.sentence)
            rungs = made.rungs
            rows[form] = (
                folder_bytes(root / form / "onnx"),
                processor_seconds(root / form, texts.texts),
                milliseconds_of_one(root / form, texts.texts),
                seconds_of_a_cold_text(root / form),
            )
        print(f"{'':<8}{'MB':>8}{'s':>8}{'ms/text':>9}{'cold s':>8}")
        for form, (size, seconds, one, cold) in rows.items():
            print(f"{form:<8}{size / 1e6:>8.1f}{seconds:>8.2f}{one:>9.1f}{cold:>8.2f}")
        size, seconds, *_ = rows["onnx"]
        good = [
            r.name
            for r in rungs
            if r.agreement is not None
            and r.bytes <= SIZE * size
            and r.seconds <= SECONDS * seconds
            and len(r.agreement.changed) <= CHANGED * r.agreement.texts
        ]
        print(f"small, fast and near: {', '.join(good) or 'none'}")
        return int(not good)


if __name__ == "__main__":
    sys.exit(main())
