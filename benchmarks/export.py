"""What an export costs and gains: python benchmarks/export.py [FOLDER ...]

FOLDERs are classifiers of Rotten Tomatoes; without any, full fine-tuning and LoRA are trained on it
(../shared/data; where it is not there, on the demo's rows). All figures on its validation and test
rows, in one thread, processor seconds, sorted batches.

1. int8: whether `tunelab export --to int8` writes anything, and what: at most 1% of labels
   changed by the upper 95% bound, accuracy not shown to be worse; at most 0.26 of the size and 0.55
   of the time of the float32 graph in onnxruntime.
2. Batch scoring: the fastest of ours that passes the same gate, against OpenVINO in bfloat16 and
   int8 and onnxruntime in int8, gated or not.

Ends with exit code 1 where a bound is missed, and says which.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tunelab
from tunelab.core.errors import ArtifactError
from tunelab.core.files import folder_bytes
from tunelab.exporting import export_classifier
from tunelab.exporting.agreement import ROUNDED, JudgedTexts, agreement_of
from tunelab.exporting.merging import exact_scores
from tunelab.models import exported

SIZE, SECONDS = 0.26, 0.55
REPEATS = 3
DATA = Path(__file__).parents[2] / "shared" / "data" / "rotten_tomatoes"
SOURCE = DATA if DATA.is_dir() else "demo"
Scores = Callable[[], Any]


def judged() -> JudgedTexts:
    """The rows that nothing was trained on."""
    rows = tunelab.load_data(SOURCE)
    parts = (rows.validation, rows.test)
    labels = np.concatenate([p.labels for p in parts])
    texts = tuple(t for p in parts for t in p.texts)
    return JudgedTexts(texts, labels, rows.train.texts, "validation and test rows")


def in_turn(runs: dict[str, Scores]) -> dict[str, float]:
    """Processor seconds of each, the least of some rounds in which they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for name, run in runs.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    return best


def of_graph(folder: Path, texts: tuple[str, ...], bfloat16: bool = False) -> Scores:
    """Scores of an export in one thread."""
    artifact = tunelab.load(folder).artifact
    graph, kind = folder / str(artifact.manifest.get("graph")), artifact.manifest["kind"]
    run = in_bfloat16(graph) if bfloat16 else exported.run_graph(graph, kind, threads=1)
    one = exported.open_graph(artifact, run)
    one.scores(texts[:32])
    return lambda: one.scores(texts)


def in_bfloat16(graph: Path) -> Any:
    """OpenVINO as it computes where it is left to itself on such a processor."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "1"}
    compiled = openvino.Core().compile_model(graph, "CPU", options)
    return lambda inputs: np.array(compiled(dict(inputs))[0])


def int8(source: Path, root: Path, texts: JudgedTexts) -> list[str]:
    """Export, say every rung, hold what was written to the bounds; gives those that are missed."""
    missed = []
    made = export_classifier(source, "onnx", root / "onnx", texts, tell=print)
    print(made.sentence)
    try:
        made = export_classifier(source, "int8", root / "int8", texts, tell=print)
    except ArtifactError as e:
        print(e)
        export_classifier(source, "int8", root / "int8", texts, allow=True)
        missed.append("int8 is refused")
    else:
        print(made.sentence)
    bytes_of = {n: folder_bytes(root / n / "onnx") for n in ("onnx", "int8")}
    seconds = in_turn({n: of_graph(root / n, texts.texts) for n in bytes_of})
    size, speed = (x["int8"] / x["onnx"] for x in (bytes_of, seconds))
    print(f"int8 as exported: {size:.3f} of the size, {speed:.2f} of the time of float32")
    missed += [f"size {size:.3f}"] * (size > SIZE) + [f"time {speed:.2f}"] * (speed > SECONDS)
    return missed


def batches(source: Path, root: Path, texts: JudgedTexts) -> list[str]:
    """Time ours and the peers in turn; gives the peers that ours is not faster than."""
    loaded = tunelab.load(source)
    names, before = loaded.label_names, exact_scores(loaded.classifier, texts.texts)  # type: ignore[arg-type]
    for form in ("openvino", "openvino-int8"):
        export_classifier(source, form, root / form, texts, allow=True)
    ours: dict[str, Scores] = {}
    for precision in ("float32", "auto", "bfloat16"):
        own = loaded.computing_in(precision).classifier
        ours[f"tunelab {precision}"] = lambda own=own: own.scores(texts.texts)
    ours["int8 export"] = of_graph(root / "int8", texts.texts)
    peers = {
        "OpenVINO bfloat16": of_graph(root / "openvino", texts.texts, bfloat16=True),
        "OpenVINO int8": of_graph(root / "openvino-int8", texts.texts),
        "onnxruntime int8": of_graph(root / "dynamic", texts.texts),
    }
    runs, faults = ours | peers, {}
    for name, run in runs.items():
        agreement = agreement_of(before, run(), texts, names)
        faults[name] = ROUNDED.fault(agreement)
        print(f"{name:<20}{len(agreement.changed):>5} changed  {faults[name] or 'passes'}")
    seconds = in_turn(runs)
    best = min((n for n in ours if faults[n] is None), key=seconds.__getitem__)
    print(f"best of ours: {best}, {len(texts.texts) / seconds[best]:.0f} texts/s of processor time")
    missed = []
    for name in runs:
        print(f"{name:<20}{seconds[name]:>7.2f} s  {seconds[name] / seconds[best]:.2f} of ours")
        missed += [f"slower than {name}"] if name in peers and seconds[name] < seconds[best] else []
    return missed


def dynamic(root: Path) -> None:
    """onnxruntime's own way, as its users have it: by column, all else as it comes."""
    import shutil

    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.copytree(root / "onnx", root / "dynamic")
    graph = root / "dynamic" / "onnx" / "model.onnx"
    quantize_dynamic(
        root / "onnx" / "onnx" / "model.onnx", graph, per_channel=True, weight_type=QuantType.QInt8
    )
    from tunelab.core.artifact import seal_again

    seal_again(root / "dynamic", {})


def main() -> int:
    """Print the figures; 1 where a bound is missed."""
    texts, missed = judged(), []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(x) for x in sys.argv[1:]]
        for method in ("full", "lora") if not folders else ():
            folders.append(Path(scratch) / method)
            tunelab.fine_tune(SOURCE, method, output_dir=folders[-1])
        for k, source in enumerate(folders):
            print(f"--- {source.name}")
            root = Path(scratch) / f"forms-{k}"
            missed += [f"{source.name}: {m}" for m in int8(source, root, texts)]
            dynamic(root)
            missed += [f"{source.name}: {m}" for m in batches(source, root, texts)]
    print(f"missed: {'; '.join(missed) or 'nothing'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
