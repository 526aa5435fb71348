"""Serving: many adapters in one batch beside peft, models coming and going, and a long run.

python benchmarks/serving.py [mixed] [one] [swaps] [soak] [--tiny | --small] [--json]

mixed  16 adapters of MiniLM (LoRA of rank 4 on all linear layers), 64 reviews of the demo in
       batches of 32, whose texts are the adapters' in turn: peft's `adapter_names`, and the
       server's row, in float32 and auto; and one merged model, on the same batches.
one    one text alone: the server's engine, and onnxruntime on the same adapter exported, in
       float32 and with weights of int8 (dynamic).
swaps  10,000 requests while models are loaded and unloaded 500 times: wrong answers, 5xx.
soak   64 clients at a time, 200,000 requests: wrong answers, lost ones, and whether memory grows.

Of mixed and one: CPU time, one thread, the best of several in turns; a ratio is of one run.
`--tiny`: swaps and soak on a tiny random base, where what is tried is the server, not arithmetic.
`--small` is for tests: fewer of everything too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
LABELS = (("neg", "pos"), ("no", "maybe", "yes"), ("a", "b", "c", "d"))
NEAR = 1e-3  # of a probability: batches of other company round otherwise


@dataclass(frozen=True)
class Sizes:
    """How much is done. `base`: a name, or None for a tiny random one."""

    base: str | None = "minilm"
    length: int = 128
    adapters: int = 16
    rounds: int = 4
    requests: int = 10_000
    swaps: int = 500
    clients: int = 64
    soaked: int = 200_000


SMALL = Sizes(None, 32, 4, 1, 300, 8, 16, 400)


def make_adapters(folder: Path, sizes: Sizes) -> list[Path]:
    """Adapters with random weights and heads of two to four classes."""
    from adapters_made import lora_config, make_adapter
    from tiny import make_tiny

    base = sizes.base or make_tiny(folder / "base", "bert")
    config = lora_config(target_modules=list(TARGETS))
    return [
        make_adapter(
            folder / f"a{k:02}",
            base,
            LABELS[k % len(LABELS)],
            k,
            config,
            max_length=sizes.length,
            spread=0.05,  # larger ones make rounding grow from layer to layer, peft's too
        )
        for k in range(sizes.adapters)
    ]


def review_texts(count: int) -> list[str]:
    import tunelab

    return list(tunelab.load_data("demo").train.texts[:count])


# --- mixed ----------------------------------------------------------------------------------


def mixed(folder: Path, sizes: Sizes) -> dict[str, object]:
    """CPU seconds of peft, of the row in float32 and auto, and of one model that reads all texts in
    the same batches; in turns. `apart`: how far the row's scores are from peft's, in float32.
    """
    import numpy as np
    import torch
    from peft import PeftModel

    import tunelab
    from tunelab.models import bases, pretrained
    from tunelab.serving.engine import items_of
    from tunelab.serving.loading import Loader, NamedFolder

    torch.set_num_threads(1)
    folders = make_adapters(folder, sizes)
    texts, count = review_texts(64), len(folders)
    batches = [range(i, i + 32) for i in range(0, len(texts), 32)]
    base = bases.resolve(sizes.base or str(folder / "base"))
    first = tunelab.load(folders[0]).classifier
    # peft keeps one head's shape: those of the first adapter's class count stand in for all.
    same = folders[:: len(LABELS)]
    names = [f"a{k}" for k in range(count)]
    start, _ = pretrained.load_classifier(base, LABELS[0], 0)
    with pretrained.quiet():
        model = PeftModel.from_pretrained(start, str(same[0]), adapter_name=names[0])
        for k in range(1, count):
            model.load_adapter(str(same[k % len(same)]), names[k])
    model.eval()
    tokenizer = first.tokenizer  # type: ignore[attr-defined]

    def by_peft() -> list[Any]:
        rows: list[Any] = []
        with torch.inference_mode():
            for batch in batches:
                given = tokenizer([texts[i] for i in batch], padding=True, truncation=True,
                                  max_length=sizes.length, return_tensors="pt")  # fmt: skip
                own = [names[i % count] for i in batch]
                rows += list(model(**given, adapter_names=own).logits.numpy())
        return rows

    def row_of(models: Sequence[Any]) -> Callable[[], list[Any]]:
        """Text i is read by model i % len(models), all models of a batch in one call."""

        def run() -> list[Any]:
            rows: list[Any] = [None] * len(texts)
            for batch in batches:
                by_model = [[i for i in batch if i % len(models) == k] for k in range(len(models))]
                asked = [
                    (m, items_of(m, [texts[i] for i in mine]))
                    for m, mine in zip(models, by_model, strict=True)
                    if mine
                ]
                given = models[0].runner(asked)
                for mine, logits in zip(filter(None, by_model), given, strict=True):
                    for i, row in zip(mine, logits, strict=True):
                        rows[i] = row
            return rows

        return run

    merged = tunelab.export(same[0], "merged", folder / "merged", allow=True).artifact.directory
    runs: dict[str, Callable[[], list[Any]]] = {"peft": by_peft}
    for precision in ("float32", "auto"):
        loader = Loader(precision)
        adapters = [loader.open(NamedFolder(n, same[k % len(same)])) for k, n in enumerate(names)]
        runs[f"row {precision}"] = row_of(adapters)
        runs[f"merged {precision}"] = row_of([loader.open(NamedFolder("merged", merged))])
    pairs = zip(by_peft(), runs["row float32"](), strict=True)
    apart = max(float(np.abs(a - b).max()) for a, b in pairs)
    seconds = best_of(runs, sizes.rounds)
    return {
        "adapters": count,
        **seconds,
        **{f"peft by row {p}": seconds["peft"] / seconds[f"row {p}"] for p in ("float32", "auto")},
        **{
            f"row by merged {p}": seconds[f"row {p}"] / seconds[f"merged {p}"]
            for p in ("float32", "auto")
        },
        "apart": apart,
    }


def best_of(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of each, run in turns; the first turn is not counted."""
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            seconds = _cpu(run)
            if turn:
                least[name] = min(least[name], seconds)
    return least


# --- one text -------------------------------------------------------------------------------


def one(folder: Path, sizes: Sizes) -> dict[str, object]:
    """CPU milliseconds a text, each alone, tokens and all: the server's engine in float32 and
    auto, and onnxruntime on the same adapter exported, in float32 and with dynamic int8 weights.
    """
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    import tunelab
    from tunelab.exporting.graphs import GRAPH
    from tunelab.serving.engine import items_of
    from tunelab.serving.loading import Loader, NamedFolder

    torch.set_num_threads(1)
    adapter, *_ = make_adapters(folder, replace(sizes, adapters=1))
    texts = review_texts(64)
    graph = tunelab.export(adapter, "onnx", folder / "onnx").artifact.directory / GRAPH
    quantize_dynamic(graph, folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    tokenizer = tunelab.load(adapter).classifier.tokenizer  # type: ignore[attr-defined]

    def by_onnxruntime(path: Path) -> Callable[[], None]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {i.name for i in session.get_inputs()}

        def run() -> None:
            for text in texts:
                given = tokenizer([text], truncation=True, max_length=sizes.length,
                                  return_tensors="np")  # fmt: skip
                session.run(None, {k: v for k, v in given.items() if k in inputs})

        return run

    def by_engine(precision: str) -> Callable[[], None]:
        served_model = Loader(precision).open(NamedFolder("a", adapter))

        def run() -> None:
            for text in texts:
                served_model.runner([(served_model, items_of(served_model, [text]))])

        return run

    runs = {
        "onnxruntime float32": by_onnxruntime(graph),
        "onnxruntime int8": by_onnxruntime(folder / "int8.onnx"),
        "engine float32": by_engine("float32"),
        "engine auto": by_engine("auto"),
    }
    seconds = best_of(runs, sizes.rounds)
    return {
        **{name: 1000 * value / len(texts) for name, value in seconds.items()},
        **{
            f"{p} by onnxruntime {q}": seconds[f"engine {p}"] / seconds[f"onnxruntime {q}"]
            for p in ("float32", "auto")
            for q in ("float32", "int8")
        },
    }


def _cpu(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


# --- a server -------------------------------------------------------------------------------


@contextmanager
def served(folders: Sequence[Path], *more: str) -> Iterator[tuple[str, int]]:
    """The address of a server in a process of its own, and the process's number."""
    command = [sys.executable, "-m", "tunelab", "serve", *map(str, folders), "--port", "0", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address is not None
            yield address[0], process.pid
        finally:
            process.terminate()
            process.wait(60)


class Wanted:
    """What each model says of each text, by itself."""

    def __init__(self, folders: Sequence[Path], texts: Sequence[str]) -> None:
        import tunelab

        self.texts = list(texts)
        self.by_model = {f.name: tunelab.load(f).predict_proba(self.texts) for f in folders}

    def is_right(self, folder: str, i: int, probs: Sequence[float]) -> bool:
        row = self.by_model[folder][i]
        return (
            len(row) == len(probs)
            and max(abs(a - b) for a, b in zip(row, probs, strict=True)) < NEAR
        )


def ask(client: Any, url: str, model: str, text: str) -> tuple[int, list[float]]:
    response = client.post(f"{url}/classify", json={"model": model, "input": text})
    return response.status_code, (
        response.json()["data"][0]["probs"] if response.status_code == 200 else []
    )


def swaps(folder: Path, sizes: Sizes) -> dict[str, object]:
    """Two adapters of unlike heads take turns under one name; others are asked meanwhile."""
    import httpx

    folders = make_adapters(folder, sizes)
    wanted = Wanted(folders, review_texts(32))
    turns, stays = folders[:2], folders[2:]
    counts = {"answers": 0, "absent": 0, "wrong": 0, "5xx": 0, "other": 0, "swaps": 0}
    lock, done = threading.Lock(), threading.Event()

    def client(k: int) -> None:
        with httpx.Client(timeout=60) as http:
            i = k
            while not done.is_set() or counts["answers"] + counts["absent"] < sizes.requests:
                i += 7
                swapped = i % 2 == 0
                name = "turn" if swapped else stays[i % len(stays)].name
                text = i % len(wanted.texts)
                status, probs = ask(http, url, name, wanted.texts[text])
                may = [f.name for f in turns] if swapped else [name]
                right = status == 200 and any(wanted.is_right(m, text, probs) for m in may)
                kind = (
                    "answers"
                    if right
                    else "wrong"
                    if status == 200
                    else (
                        "5xx"
                        if status >= 500
                        else "absent"
                        if status == 404 and swapped
                        else "other"
                    )
                )
                with lock:
                    counts[kind] += 1

    with served(stays, "--adapter-dir", str(folder)) as (url, _), ThreadPoolExecutor(9) as pool:
        clients = [pool.submit(client, k) for k in range(8)]
        with httpx.Client(timeout=120) as http:
            for i in range(sizes.swaps // 2):
                load = {"lora_name": "turn", "lora_path": turns[i % 2].name}
                assert http.post(f"{url}/v1/load_lora_adapter", json=load).status_code == 200
                gone = http.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "turn"})
                assert gone.status_code == 200
                counts["swaps"] += 2
        done.set()
        for each in clients:
            each.result()
    return dict(counts)


def soak(folder: Path, sizes: Sizes) -> dict[str, object]:
    """Clients that never rest; memory is read when a fifth is answered and at the end."""
    import httpx

    folders = make_adapters(folder, sizes)
    wanted = Wanted(folders, review_texts(32))
    counts = {"answers": 0, "wrong": 0, "lost": 0}
    lock, asked = threading.Lock(), itertools.count()

    def client(k: int) -> None:
        with httpx.Client(timeout=120) as http:
            i = k
            while next(asked) < sizes.soaked:
                i += 5
                model, text = folders[i % len(folders)].name, (i * 3) % len(wanted.texts)
                status, probs = ask(http, url, model, wanted.texts[text])
                right = status == 200 and wanted.is_right(model, text, probs)
                with lock:
                    counts["answers" if right else "wrong" if status == 200 else "lost"] += 1

    with served(folders) as (url, pid), ThreadPoolExecutor(sizes.clients) as pool:
        began = time.monotonic()
        clients = [pool.submit(client, k) for k in range(sizes.clients)]
        while sum(counts.values()) < sizes.soaked / 5:
            time.sleep(0.05)
        early = _resident(pid)
        for each in clients:
            each.result()
        late, seconds = _resident(pid), time.monotonic() - began
    memory = {"megabytes_early": early, "megabytes_late": late, "grown": late / early - 1}
    return {**counts, **memory, "seconds": seconds}


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


PARTS: dict[str, Callable[[Path, Sizes], dict[str, object]]] = {
    "mixed": mixed, "one": one, "swaps": swaps, "soak": soak,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--soaked", type=int, metavar="N", help="requests of the soak")
    parser.add_argument("--swaps", type=int)
    parser.add_argument("--requests", type=int, help="at least, while models are swapped")
    given = parser.parse_args()
    sizes = SMALL if given.small else Sizes(base=None, length=32) if given.tiny else Sizes()
    more = {k: v for k in ("soaked", "swaps", "requests") if (v := getattr(given, k)) is not None}
    sizes = Sizes(**{**asdict(sizes), **more})
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    said = {}
    for part in given.parts or PARTS:
        if part not in PARTS:
            parser.error(f"{part}: expected one of {', '.join(PARTS)}")
        with tempfile.TemporaryDirectory() as folder:
            said[part] = PARTS[part](Path(folder), sizes)
        if not given.json:
            figures = (
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                for k, v in said[part].items()
            )
            print(f"{part}: {', '.join(figures)}", flush=True)
    if given.json:
        print(json.dumps(said))


if __name__ == "__main__":
    main()
