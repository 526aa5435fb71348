"""Classifiers in other forms against the classifiers themselves, in processes without torch."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import pipeline

import tunelab
from commands import run_here
from families import DECODERS, FAMILY_NAMES, make_family
from tiny import make_tiny, reviews
from tunelab import exporting
from tunelab.core import forms
from tunelab.core.artifact import CALIBRATION, MANIFEST, open_artifact, sha256
from tunelab.core.errors import ArtifactError
from tunelab.core.values import Predictions
from tunelab.exporting import (
    agreement,
    graph_parts,
    graphs,
    ladder,
    openvino,
    rounding,
    targets,
    two_parts,
)
from tunelab.exporting.agreement import EXACT, ROUNDED, Agreement, JudgedTexts
from tunelab.exporting.ladder import Rung
from tunelab.exporting.merging import exact_scores
from tunelab.models import bases, exported, pretrained
from tunelab.models.classifier import TransformerClassifier
from tunelab.serving.loading import Loader, NamedFolder
from tunelab.serving.refusal import Refusal
from tunelab.stats import calibration

pytest.importorskip("onnxruntime")

LABELS = ("bad", "good", "so so")
ROWS = reviews(400)
TEXTS = tuple(text for text, _ in ROWS)
TRUTH = np.asarray([LABELS.index(label) for _, label in ROWS], dtype=np.int64)
JUDGED = JudgedTexts(TEXTS, TRUTH, TEXTS[:40], "made-up reviews")
ODD = ("", "?", "a", "the " * 90, "Ünïcödé 日本語 🙂", "good film\nwith a line")


def save_whole(folder: Path, base: Path, labels: Sequence[str] = LABELS) -> Path:
    """A classifier with a random head, as if trained."""
    resolved = bases.resolve(str(base))
    model: Any
    model, _ = pretrained.load_classifier(resolved, labels, 3)
    for name, p in model.named_parameters():
        if name.startswith(("classifier", "score")) and p.ndim == 2:
            p.data.mul_(5)
    model.eval().requires_grad_(False)
    tokenizer = pretrained.load_tokenizer(resolved)
    folder.mkdir(parents=True)
    TransformerClassifier(model, tokenizer, tuple(labels), resolved.ref, 32, 16).save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    folder = save_whole(root / "whole", make_tiny(root / "base", "bert"))
    rows = Predictions(
        tuple(map(str, range(200))), np.arange(200) % 3,
        np.random.default_rng(0).normal(size=(200, 3)), "logit",
    )  # fmt: skip
    calibration.write_calibration(folder, rows)
    return folder


@pytest.fixture(scope="module")
def onnx(whole: Path) -> Path:
    exporting.export_classifier(whole, "onnx", whole.parent / "onnx", JUDGED)
    return whole.parent / "onnx"


@pytest.fixture(scope="module")
def int8(whole: Path) -> exporting.Exported:
    return exporting.export_classifier(whole, "int8", whole.parent / "int8", JUDGED, allow=True)


@pytest.mark.parametrize("kind", ["onnx", "int8"])
def test_an_export_is_served_as_it_predicts_and_tokenizes_as_its_original(
    whole: Path, onnx: Path, int8: exporting.Exported, kind: str
):
    folder = onnx if kind == "onnx" else int8.artifact.directory
    original, made = (Loader().open(NamedFolder(f.name, f)) for f in (whole, folder))
    (scores,) = made.runner([(made, made.reader.read(TEXTS))])
    assert np.allclose(made.probabilities(scores), tunelab.load(folder).predict_proba(TEXTS))
    for special in (True, False):
        theirs = original.reader.tokens(TEXTS, special)
        assert made.reader.tokens(TEXTS, special) == theirs
    long = ["good " * 50 + "bad"]
    for left in (True, False):
        (ours,), (same) = (m.reader.read(long, left=left) for m in (made, original))
        assert np.array_equal(ours, same[0])
    assert made.reader.length(ours) == made.reader.max_length == original.reader.max_length
    with pytest.raises(Refusal, match="must have less than"):
        made.reader.read(long, cut=False)
    assert (made.kind, made.precision) == ("onnx", "float32" if kind == "onnx" else "int8")


def test_when_to_abstain_goes_along_where_numbers_are_not_rounded(
    whole: Path, onnx: Path, int8: exporting.Exported
):
    known = calibration.read_abstention(open_artifact(onnx))
    assert known == calibration.read_abstention(open_artifact(whole))
    assert known.rows == 200
    with pytest.raises(ArtifactError, match="its numbers are rounded"):
        calibration.read_abstention(int8.artifact)


def reference(folder: Path, texts: Sequence[str]) -> np.ndarray:
    own: Any = tunelab.load(folder).classifier
    return exact_scores(own, texts)


def python(code: str, *arguments: object) -> Any:
    """Run code in a fresh process; what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- float ----------------------------------------------------------------------------------


def test_a_graph_scores_as_the_classifier_does_for_any_batch_and_length(whole: Path, onnx: Path):
    loaded = tunelab.load(onnx)
    assert loaded.label_names == LABELS
    texts = [*TEXTS[:40], *ODD]
    expected = reference(whole, texts)
    assert np.abs(loaded.classifier.scores(texts) - expected).max() <= 1e-5
    alone = np.concatenate([loaded.classifier.scores([t]) for t in texts])
    assert np.abs(alone - expected).max() <= 1e-5
    assert loaded.classifier.scores([]).shape == (0, 3)


def test_the_layout_is_what_others_read(whole: Path, onnx: Path):
    names = {p.relative_to(onnx).as_posix() for p in onnx.rglob("*") if p.is_file()}
    assert names == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx",
        CALIBRATION, MANIFEST,
    }  # fmt: skip
    config = json.loads((onnx / "config.json").read_text())
    assert config["id2label"] == {str(i): n for i, n in enumerate(LABELS)}
    assert config["label2id"] == {n: i for i, n in enumerate(LABELS)}
    said = json.loads((onnx / "tokenizer_config.json").read_text())
    assert said["model_max_length"] == 32
    manifest = json.loads((onnx / MANIFEST).read_text())
    assert manifest["exported_from"]["changed_labels"] == 0
    assert manifest["exported_from"]["allowed_in_spite_of"] is None
    assert 0 < manifest["exported_from"]["largest_change"] < 1e-5


def test_bare_onnxruntime_and_the_tokenizer_of_the_folder_give_the_scores(whole: Path, onnx: Path):
    """As a stranger uses it: transformers' tokenizer, whose inputs are the graph's, and no more."""
    code = """
import json, sys, onnxruntime
from transformers import AutoTokenizer, AutoConfig
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True,
                                               return_tensors="np")
session = onnxruntime.InferenceSession(folder + "/onnx/model.onnx")
scores = session.run(None, dict(tokens))[0]
names = AutoConfig.from_pretrained(folder).id2label
print(json.dumps([scores.tolist(), [names[i] for i in range(3)]]))
"""
    texts = [t for t in (*TEXTS[:8], *ODD) if t]
    scores, names = python(code, onnx, json.dumps(texts))
    assert tuple(names) == LABELS
    assert np.abs(np.asarray(scores) - reference(whole, texts)).max() <= 1e-5


def test_predict_runs_an_export_without_torch(whole: Path, onnx: Path):
    code = """
import contextlib, io, json, sys
sys.argv = ["tunelab", "predict", *sys.argv[1:]]
from tunelab.cli import app
out = io.StringIO()
with contextlib.redirect_stdout(out):
    app(standalone_mode=False)
heavy = {"torch", "transformers", "peft", "sklearn", "scipy", "pandas"} & set(sys.modules)
print(json.dumps([out.getvalue(), sorted(heavy)]))
"""
    said, heavy = python(code, onnx, TEXTS[0], "--json")
    assert heavy == []
    expected = tunelab.load(whole).computing_in("float32").predict_proba(TEXTS[:1])[0]
    found = json.loads(said)["probabilities"]
    assert [found[n] for n in LABELS] == pytest.approx(expected.tolist(), abs=2e-6)


def test_an_export_keeps_the_temperature_and_can_be_saved(whole: Path, onnx: Path, tmp_path: Path):
    loaded = tunelab.load(onnx)
    expected = tunelab.load(whole).computing_in("float32").calibrated().predict_proba(TEXTS[:8])
    found = loaded.computing_in("float32").calibrated().predict_proba(TEXTS[:8])
    assert np.abs(found - expected).max() <= 1e-5
    loaded.classifier.save(tmp_path)
    assert (
        tunelab.load(tmp_path).predict_proba(TEXTS[:8]) == loaded.predict_proba(TEXTS[:8])
    ).all()
    with pytest.raises(ArtifactError, match=r"bfloat16 is for a model.*found onnx"):
        loaded.computing_in("bfloat16")


def test_exports_are_listed_shown_verified_and_compared(
    whole: Path, onnx: Path, int8: exporting.Exported, tmp_path: Path
):
    rows = {r["folder"]: r for r in exporting.find_artifacts(whole.parent)}
    assert rows[str(onnx)]["kind"] == "onnx"
    assert rows[str(onnx)]["method"] == "onnx, as onnx"
    facts: Any = exporting.show(onnx)
    assert facts["made_from"]["name"] == "whole"
    assert facts["bytes"] == {"graph": (onnx / "onnx" / "model.onnx").stat().st_size}
    assert [c.status for c in exporting.verify(onnx)].count("fault") == 0
    shutil.copytree(onnx, tmp_path / "cut")
    graph = tmp_path / "cut" / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:2000])
    faults = {c.name: c.detail for c in exporting.verify(tmp_path / "cut") if c.status == "fault"}
    assert "checksums" in faults
    assert "onnxruntime" in faults["graph readable"]
    table = tmp_path / "rows.csv"
    three = [(t, LABELS[i % 3]) for i, t in enumerate(TEXTS[:30])]
    table.write_text("text,label\n" + "".join(f"{t},{n}\n" for t, n in three))
    said = run_here("evaluate", onnx, int8.artifact.directory, whole, "--data", table,
                    "--part", "all", "--json")  # fmt: skip
    assert said.code == 0, said.err
    pairs = json.loads(said.out)["mcnemar"]
    assert [p["p_value"] for p in pairs if {p["a"], p["b"]} == {str(onnx), str(whole)}] == [1.0]


CLASSIFY = """
import { pipeline, env } from '@huggingface/transformers';
const [root, name, dtype, texts] = process.argv.slice(2);
env.localModelPath = root; env.allowRemoteModels = false;
const classify = await pipeline('text-classification', name, { dtype });
const rows = [];
for (const text of JSON.parse(texts)) rows.push(await classify(text, { top_k: null }));
console.log(JSON.stringify(rows));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script beside transformers.js, as npm has it."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs Node and npm")
    folder = tmp_path_factory.mktemp("node")
    done = subprocess.run(
        ["npm", "install", "--prefer-offline", "--no-audit", "--no-fund",
         "@huggingface/transformers@4"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"},
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install transformers.js: {done.stderr.strip()[-200:]}")
    (folder / "classify.mjs").write_text(CLASSIFY)
    return folder / "classify.mjs"


@pytest.mark.slow
def test_transformers_js_gives_the_same_scores(node: Path, onnx: Path, int8: exporting.Exported):
    """The folder as it is, in JavaScript, with nothing but what lies in it."""
    texts = [t for t in (*TEXTS[:8], *ODD) if t]
    for folder, dtype, limit in ((onnx, "fp32", 1e-5), (int8.artifact.directory, "q8", 1e-3)):
        done = subprocess.run(
            ["node", str(node), f"{folder.parent}/", folder.name, dtype, json.dumps(texts)],
            cwd=node.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = [{each["label"]: each["score"] for each in row} for row in json.loads(done.stdout)]
        raw = tunelab.load(folder).raw()
        for text, row in zip(texts, rows, strict=True):
            expected = raw.predict_proba([text])[0]
            assert [row[n] for n in LABELS] == pytest.approx(expected.tolist(), abs=limit)


IN_BROWSER = """<!doctype html><meta charset="utf-8"><body><script type="module">
import { pipeline, env } from '/node_modules/@huggingface/transformers/dist/transformers.min.js';
env.allowRemoteModels = false; env.allowLocalModels = true; env.localModelPath = '/models/';
env.useBrowserCache = false;
env.backends.onnx.wasm.wasmPaths = '/node_modules/onnxruntime-web/dist/';
window.classify = async (name, dtype, texts) => {
  const classifier = await pipeline('text-classification', name, { dtype, device: 'wasm' });
  const rows = [];
  for (const text of texts) rows.push(await classifier(text, { top_k: null }));
  return rows;
};
window.ready = true;
</script>"""


@pytest.fixture
def served(node: Path, onnx: Path, int8: exporting.Exported) -> Iterator[str]:
    """A web server on this machine: transformers.js and the exported folders, as they are."""
    root = node.parent
    (root / "page.html").write_text(IN_BROWSER)
    (root / "models").mkdir(exist_ok=True)
    for folder in (onnx, int8.artifact.directory):
        (root / "models" / folder.name).symlink_to(folder)

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_browser_gives_the_same_scores(served: str, onnx: Path, int8: exporting.Exported):
    """Headless Chromium, with nothing but what this machine serves."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("needs Chromium (Debian's package)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    texts, strangers = [TEXTS[0], "Ünïcödé 日本語 🙂", "the " * 90], []
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda r: strangers.append(r.url) if served not in r.url else None)
        page.goto(f"{served}/page.html")
        page.wait_for_function("window.ready")
        for folder, dtype, limit in ((onnx, "fp32", 1e-5), (int8.artifact.directory, "q8", 1e-3)):
            rows = page.evaluate(
                "([name, dtype, texts]) => window.classify(name, dtype, texts)",
                [folder.name, dtype, texts],
            )
            raw = tunelab.load(folder).raw()
            for text, row in zip(texts, rows, strict=True):
                scores = {each["label"]: each["score"] for each in row}
                expected = raw.predict_proba([text])[0]
                assert [scores[n] for n in LABELS] == pytest.approx(expected.tolist(), abs=limit)
        browser.close()
    assert not [url for url in strangers if not url.startswith(("blob:", "data:"))]


# --- adapters -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_an_adapter_is_exported_merged_or_as_it_is(tmp_path: Path, kind: str):
    """Also one that adds tokens, and so cannot be merged."""
    base = make_tiny(tmp_path / "base", "bert")
    config: Any = (
        PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
        if kind == "prompt"
        else LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query", "value"])
    )
    resolved = bases.resolve(str(base))
    model, _ = pretrained.load_classifier(resolved, LABELS, 3)
    with pretrained.quiet():
        adapted = get_peft_model(model, config)
    torch.manual_seed(3)
    for name, p in adapted.named_parameters():
        if p.requires_grad and "original_module" not in name:
            p.data.normal_(0.0, 0.3)
    (tmp_path / kind).mkdir()
    TransformerClassifier(
        adapted.eval(), pretrained.load_tokenizer(resolved), LABELS, resolved.ref, 32, 16
    ).save(tmp_path / kind)
    made = exporting.export_classifier(tmp_path / kind, "onnx", tmp_path / "onnx", JUDGED)
    texts = [*TEXTS[:20], *ODD]
    expected = reference(tmp_path / kind, texts)
    found = tunelab.load(tmp_path / "onnx").classifier.scores(texts)
    assert np.abs(found - expected).max() <= 1e-5
    assert 0 < made.agreement.largest <= 1e-5
    if kind == "prompt":
        with pytest.raises(ArtifactError, match="it adds tokens, not weights"):
            exporting.export_classifier(tmp_path / kind, "merged", tmp_path / "merged", JUDGED)
        assert not (tmp_path / "merged").exists()
        return
    whole = exporting.export_classifier(tmp_path / kind, "merged", tmp_path / "merged", JUDGED)
    assert whole.artifact.manifest["exported_from"]["target"] == "merged"
    classify = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)
    row = {each["label"]: each["score"] for each in classify([texts[0]], truncation=True)[0]}
    p = tunelab.load(tmp_path / kind).computing_in("float32").raw().predict_proba([texts[0]])[0]
    assert [row[n] for n in LABELS] == pytest.approx(p.tolist(), abs=1e-5)


# --- int8 -----------------------------------------------------------------------------------


def test_int8_shows_every_rung_and_takes_the_fastest_that_passes(int8: exporting.Exported):
    assert [r.name for r in int8.rungs] == list(rounding.ONNX_WAYS)
    assert all(r.agreement is not None for r in int8.rungs)
    by_name = {r.name: r for r in int8.rungs}
    passing = [r for r in int8.rungs if r.fault is None]
    if passing:
        assert int8.rung == min(passing, key=lambda r: r.seconds).name
        assert int8.fault is None
    else:
        assert int8.rung in by_name
        assert int8.fault is not None
    kept = int8.artifact.manifest["exported_from"]
    assert [r["name"] for r in kept["rungs"]] == list(rounding.ONNX_WAYS)
    assert kept["allowed_in_spite_of"] == int8.fault
    names = {p.name for p in (int8.artifact.directory / "onnx").iterdir()}
    assert names == {"model_quantized.onnx"}
    # These come nearest: inputs are not rounded, or to 16 bits.
    by_change = sorted(int8.rungs, key=lambda r: r.agreement.largest if r.agreement else 1)
    assert {r.name for r in by_change[:2]} == {"weights only", "two parts"}


def test_a_rung_that_holds_goes_before_a_faster_one_and_a_slow_one_comes_last():
    def rung(name: str, seconds: float, changed: int, fault: str | None) -> Rung:
        texts = (agreement.ChangedText("x", "good", "bad", None),) * changed
        return Rung(name, agreement_with(changed=texts), fault, seconds, 10)

    rungs = [
        rung("slow", 1.2, 1, "too many"),
        rung("fast", 0.4, 9, "too many"),
        rung("near", 0.6, 3, "too many"),
        rung("holds", 1.1, 2, None),
        rung("holds, faster", 0.9, 4, None),
    ]
    said = [r.name for r in sorted(rungs, key=lambda r: ladder._preference(r, 1.0))]
    assert said == ["holds, faster", "holds", "near", "fast", "slow"]
    assert "0.60 of the time, 3 of 1000 labels changed" in rungs[2].sentence(1.0, 40)
    unmade = Rung("static", None, "no such operator")
    assert unmade.sentence(1.0, 40) == "static: cannot be made (no such operator)"


def test_smoothing_changes_nothing_but_where_outliers_are(onnx: Path, tmp_path: Path):
    read = exported.input_batches(tunelab.load(onnx).artifact)
    batches = [inputs for _, inputs in read(TEXTS[:64])]
    source = rounding.Rounding.of(onnx / graphs.GRAPH, batches, tmp_path)
    model = graph_parts.read_graph(source.source)
    for name, seen in source.seen.items():  # a column that is far larger than all others
        seen.largest[3] *= 50
        seen.rows[:, 3] *= 50
        assert name
    errors = rounding._smooth(model, source.seen)
    assert errors
    assert all(0 < e < 1 for e in errors.values())
    graph_parts.write_graph(model, tmp_path / "smooth.onnx")
    run = [exported.run_graph(p, "onnx") for p in (source.source, tmp_path / "smooth.onnx")]
    assert sum(n.op_type == "Mul" and "smoothing" in n.name for n in model.graph.node) > 0
    for batch in batches:
        assert np.abs(run[0](batch) - run[1](batch)).max() <= 1e-4


def test_parts_of_like_range_compute_what_the_product_did(onnx: Path, tmp_path: Path):
    read = exported.input_batches(tunelab.load(onnx).artifact)
    batches = [inputs for _, inputs in read(TEXTS[:64])]
    source = rounding.Rounding.of(onnx / graphs.GRAPH, batches, tmp_path)
    model = graph_parts.read_graph(source.source)
    gelus = sum(n.op_type == "Gelu" for n in model.graph.node)
    seen = rounding._part_by_range(model, source.seen)
    assert sum(n.op_type == "Gelu" for n in model.graph.node) > gelus > 0
    assert set(seen) == {n.input[0] for n in graph_parts.constant_products(model)}
    parts = [(name.partition("_part_")[0], s) for name, s in seen.items() if "_part_" in name]
    for _, of_product in itertools.groupby(parts, key=lambda part: part[0]):
        ranges = [s.largest for _, s in of_product]
        assert len(ranges) > 1
        assert all(a.min() >= b.max() for a, b in itertools.pairwise(ranges))
    graph_parts.write_graph(model, tmp_path / "parts.onnx")
    run = [exported.run_graph(p, "onnx") for p in (source.source, tmp_path / "parts.onnx")]
    for batch in batches:
        assert np.abs(run[0](batch) - run[1](batch)).max() <= 1e-5


def test_weights_rounded_by_gptq_compute_nearer_to_the_product_than_each_by_itself():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 64)) @ rng.normal(size=(64, 64))).astype(np.float32)  # correlated
    w = rng.normal(size=(64, 24)).astype(np.float32)
    scale = np.abs(w).max(axis=0) / 7  # so coarse that it is seen

    def error(rounded: np.ndarray) -> float:
        return float(np.linalg.norm(x @ (rounded * scale - w)) / np.linalg.norm(x @ w))

    plain, gptq = (two_parts.gptq_rounded(w, scale, g) for g in (None, x.T @ x))
    assert np.abs(plain - w / scale).max() <= 0.5 + 1e-6
    assert error(gptq) < 0.7 * error(plain)


def test_inputs_in_two_parts_are_nearly_exact(int8: exporting.Exported):
    """What is left of the change is the weights', as where nothing but these is rounded."""
    largest = {r.name: r.agreement.largest for r in int8.rungs if r.agreement is not None}
    assert largest["two parts"] < 0.5 * largest["dynamic"]


# --- OpenVINO -------------------------------------------------------------------------------


@pytest.mark.slow
def test_openvino_scores_as_the_classifier_does_in_float_and_rounds_by_its_own_ladder(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("nncf")
    made = exporting.export_classifier(whole, "openvino", tmp_path / "ov", JUDGED)
    texts = [*TEXTS[:40], *ODD]
    loaded = tunelab.load(tmp_path / "ov")
    assert np.abs(loaded.classifier.scores(texts) - reference(whole, texts)).max() <= 1e-5
    assert {p.suffix for p in made.artifact.directory.iterdir()} == {".json", ".xml", ".bin"}
    assert [c.status for c in exporting.verify(tmp_path / "ov")].count("fault") == 0
    # Only beside its graph is a .bin what OpenVINO writes.
    (tmp_path / "ov" / "openvino_model.xml").rename(tmp_path / "ov" / "other.xml")
    with pytest.raises(ArtifactError, match=r"holds a pickle \(openvino_model.bin\)"):
        tunelab.load(tmp_path / "ov")
    rounded = exporting.export_classifier(
        whole, "openvino-int8", tmp_path / "int8", JUDGED, allow=True
    )
    assert [r.name for r in rounded.rungs] == list(openvino.OPENVINO_WAYS)
    assert all(r.agreement is not None for r in rounded.rungs), [r.fault for r in rounded.rungs]
    assert tunelab.load(tmp_path / "int8").predict(TEXTS[:2])
    assert "Statistics" not in capfd.readouterr().out


# --- families -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_is_exported_or_refused_by_name(tmp_path: Path, family: str):
    folder = save_whole(tmp_path / "whole", make_family(tmp_path / "base", family))
    made = exporting.export_classifier(folder, "onnx", tmp_path / "onnx", JUDGED)
    assert made.fault is None
    texts = [*TEXTS[:40], *(t for t in ODD if t or family not in DECODERS)]
    expected = reference(folder, texts)
    scores = tunelab.load(tmp_path / "onnx").classifier.scores(texts)
    assert np.abs(scores - expected).max() <= 1e-5 * np.abs(expected).max()
    rounded = exporting.export_classifier(folder, "int8", tmp_path / "int8", JUDGED, allow=True)
    assert (rounded.fault is None) == any(r.fault is None for r in rounded.rungs)
    assert tunelab.load(tmp_path / "int8").predict(TEXTS[:4])


# --- SVMs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"word_ngrams": 2, "char_ngrams": 4}, {"word_ngrams": 0}])
def test_a_tfidf_svm_is_exported_with_the_reading_of_its_terms(
    tmp_path: Path, settings: dict[str, int]
):
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f'"{t}",{n}\n' for t, n in ROWS))
    tunelab.fine_tune(table, "svm-tfidf", output_dir=tmp_path / "svm", **settings)
    made = tunelab.export(tmp_path / "svm", to="onnx", output_dir=tmp_path / "onnx")
    assert "validation part" in made.agreement.described
    assert made.agreement.accuracy is not None
    texts = [*TEXTS[:20], *ODD, "İstanbul  ß\tǅ", "x"]
    before, after = (tunelab.load(tmp_path / n).classifier.scores(texts) for n in ("svm", "onnx"))
    np.testing.assert_allclose(after, before, atol=1e-5)
    with pytest.raises(ArtifactError, match=r"svm-tfidf has one sparse product.*--to onnx"):
        tunelab.export(tmp_path / "svm", to="int8", output_dir=tmp_path / "int8")
    with pytest.raises(ArtifactError, match="kind svm-tfidf, expected an adapter"):
        tunelab.export(tmp_path / "svm", to="merged", output_dir=tmp_path / "merged")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_svm_on_a_base_is_one_graph(tmp_path: Path, pooling: str):
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f'"{t}",{n}\n' for t, n in ROWS))
    base = make_family(tmp_path / "base", "distilbert")
    tunelab.fine_tune(table, "svm", model=str(base), output_dir=tmp_path / "svm", pooling=pooling,
                      max_length=32)  # fmt: skip
    made = tunelab.export(tmp_path / "svm", to="onnx", output_dir=tmp_path / "onnx")
    assert made.agreement.largest <= 1e-4
    before, after = (tunelab.load(tmp_path / n).predict_proba(TEXTS) for n in ("svm", "onnx"))
    np.testing.assert_allclose(after, before, atol=1e-4)


# --- refusals -------------------------------------------------------------------------------


def agreement_with(**changes: Any) -> Agreement:
    plain = Agreement(1000, "texts", 1e-6, (), agreement.upper_bound(0, 1000), None)
    return replace(plain, **changes)


def test_the_bound_is_clopper_and_pearsons():
    from scipy.stats import binomtest

    for hits, n in ((0, 288), (1, 576), (7, 400), (5, 5)):
        exact = binomtest(hits, n).proportion_ci(0.90, "exact").high
        assert agreement.upper_bound(hits, n) == pytest.approx(exact)
    assert agreement.least_texts(0, 0.01) == 299
    assert agreement.upper_bound(0, 299) <= 0.01 < agreement.upper_bound(0, 298)


def test_what_is_let_pass_and_what_is_not():
    changed = (agreement.ChangedText("x", "good", "bad", None),)
    assert EXACT.fault(agreement_with()) is None
    assert "a probability moves by 1.1e-04" in str(EXACT.fault(agreement_with(largest=1.1e-4)))
    assert "1 of 1000 labels change" in str(EXACT.fault(agreement_with(changed=changed)))
    for rule in (EXACT, ROUNDED):
        assert "no finite numbers" in str(rule.fault(agreement_with(largest=float("nan"))))
    assert ROUNDED.fault(agreement_with(largest=0.3, changed=changed, at_most=0.0047)) is None
    few = agreement_with(texts=288, at_most=agreement.upper_bound(0, 288))
    assert "299 texts with no more changes than that would show it, there are 288" in str(
        ROUNDED.fault(few)
    )
    many = agreement_with(changed=changed * 20, at_most=agreement.upper_bound(20, 1000))
    assert "up to 2.8" in str(ROUNDED.fault(many))
    assert "would show it" not in str(ROUNDED.fault(many))
    worse = agreement.AccuracyChange(1000, 0.9, 0.88, 0.01)
    assert "accuracy falls from 90.0 to 88.0" in str(ROUNDED.fault(agreement_with(accuracy=worse)))
    better = agreement.AccuracyChange(1000, 0.88, 0.9, 0.01)
    assert ROUNDED.fault(agreement_with(accuracy=better)) is None


def test_an_export_whose_predictions_do_not_hold_is_refused_or_says_so_for_ever(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = graphs._trace

    def turned(module: Any, path: Path, name: str) -> None:
        module.model.classifier.weight.data.neg_()
        real(module, path, name)

    monkeypatch.setattr(graphs, "_trace", turned)
    with pytest.raises(ArtifactError, match=r"as onnx its predictions would not hold:.*--allow"):
        exporting.export_classifier(whole, "onnx", tmp_path / "deep" / "out", JUDGED)
    assert list(tmp_path.iterdir()) == []
    made = exporting.export_classifier(whole, "onnx", tmp_path / "out", JUDGED, allow=True)
    assert made.fault
    kept = json.loads((tmp_path / "out" / MANIFEST).read_text())["exported_from"]
    assert kept["allowed_in_spite_of"] == made.fault
    assert kept["changed_labels"] > 0
    # It is given away: no text of the data goes with it, unless that was asked for.
    manifest = (tmp_path / "out" / MANIFEST).read_text()
    assert not any(text in manifest for text in TEXTS)
    asked = exporting.export_classifier(
        whole, "onnx", tmp_path / "asked", JUDGED, allow=True, keep_texts=True
    )
    texts = asked.artifact.manifest["exported_from"]["changed_texts"]
    assert len(texts) == kept["changed_labels"]
    assert tunelab.load(tmp_path / "out").notes[0].startswith("Exported in spite of")


def test_targets_folders_and_packages_that_are_not_there_are_named(
    whole: Path, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ArtifactError, match=r"'onx' is unknown. Did you mean 'onnx'\?"):
        exporting.export_classifier(whole, "onx", tmp_path / "out", JUDGED)
    with pytest.raises(ArtifactError, match="is an export already"):
        exporting.export_classifier(onnx, "int8", tmp_path / "out", JUDGED)
    with pytest.raises(ArtifactError, match="folder of the original"):
        exporting.export_classifier(whole, "onnx", whole / "onnx", JUDGED)
    with pytest.raises(ArtifactError, match="a whole model already"):
        exporting.export_classifier(whole, "merged", tmp_path / "out", JUDGED)
    with pytest.raises(ArtifactError, match="No texts"):
        JudgedTexts((), np.empty(0, np.int64), (), "none")
    monkeypatch.setattr(forms.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"needs onnx.*pip install"):
        exporting.export_classifier(whole, "onnx", tmp_path / "out", JUDGED)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_its_graph_or_runtime_says_so(
    onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(onnx, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match=r"run by onnxruntime.*pip install"):
        tunelab.load(tmp_path / "out")
    monkeypatch.undo()
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({**manifest, "graph": "onnx/other.onnx"}))
    with pytest.raises(ArtifactError, match=r"expected the graph .*other.onnx; found none"):
        tunelab.load(tmp_path / "out")
    shutil.copy(onnx / "onnx" / "model.onnx", tmp_path / "elsewhere.onnx")  # of no known hash
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({**manifest, "graph": "../elsewhere.onnx"}))
    with pytest.raises(ArtifactError, match=r"expected the graph .*elsewhere.onnx; found none"):
        tunelab.load(tmp_path / "out")


MALFORMED: dict[str, tuple[str, Any]] = {
    "a config of nothing": ("config.json", {}),
    "a config that is a list": ("config.json", [1]),
    "a graph that is a number": (MANIFEST, {"graph": 5}),
    "no graph": (MANIFEST, {"graph": None}),
    "a length in words": (MANIFEST, {"max_length": "long"}),
    "no length": (MANIFEST, {"max_length": None}),
    "a pad that is none": (MANIFEST, {"pad_id": -1}),
    "a label more": (MANIFEST, {"label_names": ["a", "b", "c", "d"]}),
    "from nothing": (MANIFEST, {"exported_from": {}}),
    "a tokenizer of nothing": ("tokenizer.json", {}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_export_is_refused_in_one_line(onnx: Path, tmp_path: Path, name: str):
    file, value = MALFORMED[name]
    folder = Path(shutil.copytree(onnx, tmp_path / "out"))
    manifest = json.loads((folder / MANIFEST).read_text())
    if file == MANIFEST:
        manifest = {k: v for k, v in {**manifest, **value}.items() if v is not None}
    else:
        (folder / file).write_text(json.dumps(value))
        manifest["files"][file] = sha256(folder / file)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError) as refused:
        tunelab.load(folder).predict(["a text"])
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_fresh_process_finds_the_packages_that_this_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = str(Path(targets.__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/first", own, "/last"])
    assert targets._import_path().split(os.pathsep) == ["/first", own, "/last"]


def test_the_command_says_what_was_made_and_refuses_in_one_line(whole: Path, tmp_path: Path):
    said = run_here("export", whole, "--to", "onnx", "--output-dir", tmp_path / "out")
    assert said.code == 0, said.err
    assert "Exported to" in said.out
    assert "0 of 70 labels changed" in said.out
    again = run_here("export", whole, "--to", "onnx", "--output-dir", tmp_path / "out")
    assert (again.code, len(again.faults)) == (2, 1)
    assert "not empty" in again.err
    small = run_here("export", whole, "--to", "int8", "--output-dir", tmp_path / "int8")
    assert small.code == 2
    assert "299 texts" in small.faults[-1] or "labels may change" in small.faults[-1]
    assert sum(line.startswith("tunelab:") for line in small.faults) == 1
    assert not (tmp_path / "int8").exists()
