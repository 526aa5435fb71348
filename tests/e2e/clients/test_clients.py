"""Clients of others, untouched, against a running server: what they get is what predict says."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tunelab
from adapters_made import make_adapter, make_svm
from serving import Running, running_server
from tiny import reviews

TEXT, DULL = "a good film", "dull, hé"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    root = tmp_path_factory.mktemp("clients")
    make_adapter(root / "a", tiny_bert, ("bad", "good"), 1)
    make_adapter(root / "b", tiny_bert, ("no", "maybe", "yes"), 2)
    make_svm(root / "svm", reviews(60))
    return root


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Running]:
    folders = [home / n for n in ("a", "b", "svm")]
    with running_server(home / "log", *folders, "--adapter-dir", home) as running:
        yield running
        assert running.stop() == 0
        assert running.log.read_text("utf-8") == ""


def wanted(home: Path, name: str, text: str = TEXT) -> dict[str, float]:
    loaded = tunelab.load(home / name)
    return dict(zip(loaded.label_names, loaded.predict_proba([text])[0], strict=True))


def check(given: dict[str, float], expected: dict[str, float]) -> None:
    assert given == pytest.approx(expected, abs=2e-5)


# --- Python ---------------------------------------------------------------------------------


def test_huggingface_hub(server: Running, home: Path, monkeypatch: pytest.MonkeyPatch):
    # It asks nobody but our server; offline it would not even do that.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    client = InferenceClient(model=f"{server.url}/models/b")
    check({x.label: x.score for x in client.text_classification(TEXT)}, wanted(home, "b"))
    best = max(wanted(home, "b").items(), key=lambda kv: kv[1])
    (top,) = client.text_classification(TEXT, top_k=1, function_to_apply="softmax")
    check({top.label: top.score}, dict([best]))
    inference = InferenceClient(model=f"{server.url}/models/a", provider="hf-inference")
    check({x.label: x.score for x in inference.text_classification(TEXT)}, wanted(home, "a"))
    assert inference.health_check()
    labels = inference.get_endpoint_info()["model_type"]["classifier"]["id2label"]
    assert labels == {"0": "bad", "1": "good"}
    root = InferenceClient(model=server.url)
    check({x.label: x.score for x in root.text_classification(TEXT)}, wanted(home, "a"))
    with pytest.raises(HfHubHTTPError, match="does not exist"):
        InferenceClient(model=f"{server.url}/models/none").text_classification(TEXT)


def test_openai(server: Running, home: Path):
    import httpx
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
        assert {"a", "b", "svm"} < {m.id for m in client.models.list()}
        assert client.models.retrieve("a").id == "a"
        said = client.moderations.create(model="b", input=[TEXT, DULL])
        for result, text in zip(said.results, (TEXT, DULL), strict=True):
            scores = result.category_scores.to_dict()
            check({k: float(str(v)) for k, v in scores.items()}, wanted(home, "b", text))
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.moderations.create(model="none", input=TEXT)
        raw = client.post(
            f"{server.url}/classify", cast_to=httpx.Response, body={"model": "b", "input": [TEXT]}
        ).json()
        probs = raw["data"][0]["probs"]
        check(dict(zip(("no", "maybe", "yes"), probs, strict=True)), wanted(home, "b"))


def test_tritonclient(server: Running, home: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports
        import tritonclient.http as triton
        from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("b")
        assert client.get_server_metadata()["name"] == "tunelab"
        outputs = client.get_model_metadata("b")["outputs"]
        assert outputs[0] == {"name": "probs", "datatype": "FP32", "shape": [-1, 3]}
        texts = np.array([TEXT, DULL], dtype=object)
        for binary in (False, True):
            tensor = triton.InferInput("text", [2], "BYTES")
            tensor.set_data_from_numpy(texts, binary_data=binary)
            asked = [triton.InferRequestedOutput("probs", binary_data=binary)]
            for outputs in (asked, None):
                result = client.infer("b", [tensor], outputs=outputs)
                for row, text in zip(result.as_numpy("probs"), (TEXT, DULL), strict=True):
                    check(
                        dict(zip(("no", "maybe", "yes"), row, strict=True)), wanted(home, "b", text)
                    )
            best = tunelab.load(home / "b").predict([TEXT, DULL])
            assert [str(x) for x in result.as_numpy("label")] == best
        with pytest.raises(InferenceServerException, match="does not exist"):
            client.infer("none", [tensor])
        client.load_model("svm")
        assert client.is_model_ready("svm")
        client.unload_model("svm")
        assert not client.is_model_ready("svm")
        client.load_model("svm")
        assert {m["name"] for m in client.get_model_repository_index()} == {"a", "b", "svm"}
    finally:
        client.close()


def test_curl_of_the_guide(server: Running, home: Path):
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    said = subprocess.run(
        ["curl", "-s", f"{server.url}/classify", "-H", "Content-Type: application/json",
         "-d", json.dumps({"model": "svm", "input": [TEXT]})],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    row = dict(zip(("bad", "good"), json.loads(said)["data"][0]["probs"], strict=True))
    check(row, wanted(home, "svm"))


# --- Node -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages, from npm; skipped where they cannot be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no node and npm")
    folder = tmp_path_factory.mktemp("node")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder,
         "@huggingface/inference@4", "openai@6"],
        capture_output=True, text=True, timeout=300, check=False, cwd=folder,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.mark.slow
def test_node_clients(server: Running, home: Path, node_folder: Path):
    script = node_folder / "clients.mjs"
    script.write_text((HERE / "node_clients.mjs").read_text("utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["node", script, server.url, TEXT], cwd=node_folder, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    check({x["label"]: x["score"] for x in said["hub"]}, wanted(home, "b"))
    best = max(wanted(home, "b"), key=wanted(home, "b").__getitem__)
    assert [x["label"] for x in said["hubTop"]] == [best]
    assert {"a", "b", "svm"} < set(said["models"])
    assert said["one"] == "b"
    for scores, text in zip(said["moderation"], (TEXT, "dull"), strict=True):
        check(scores, wanted(home, "b", text))
    assert "does not exist" in said["moderationUnknown"]
    assert said["hubUnknown"]
