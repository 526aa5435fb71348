"""Every protocol's form, in one process: answers, refusals, keys, limits, recorded cases."""

from __future__ import annotations

import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

import tunelab
from adapters_made import make_adapter, make_svm
from tiny import reviews
from tunelab.core.artifact import seal_again
from tunelab.serving.engine import ModelTable, ServingEngine
from tunelab.serving.listening import ServerSettings, make_service
from tunelab.serving.loading import NamedFolder
from tunelab.serving.refusal import Limits
from tunelab.serving.service import Service
from tunelab.serving.web import make_app

TEXT = "a good film"
ASKED_ABOVE = 0.6
Client = Callable[..., TestClient]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    root = tmp_path_factory.mktemp("http")
    make_adapter(root / "a", tiny_bert, ("bad", "good"), 1)
    make_adapter(root / "b", tiny_bert, ("no", "maybe", "yes"), 2)
    svm = make_svm(root / "svm", reviews(60))
    # Of 19 rows, an error of 0.1 allows one wrong answer: those above the second confidence.
    abstention = {"rows": 19, "wrong": [0.99, ASKED_ABOVE, 0.5]}
    known = {"temperature": 2.0, "abstention": abstention}
    (svm / "calibration.json").write_text(json.dumps(known))
    seal_again(svm, {})
    return root


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    models = [NamedFolder(n, home / n) for n in ("a", "b", "svm")]
    settings = ServerSettings(flag=("bad",), adapter_dir=home, limits=Limits(texts=4, body=4000))
    made = make_service(models, settings)
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def http(service: Service) -> TestClient:
    return TestClient(make_app(service))  # not entered: the service outlives it


def wanted(home: Path, name: str, text: str = TEXT) -> dict[str, float]:
    loaded = tunelab.load(home / name)
    return dict(zip(loaded.label_names, loaded.predict_proba([text])[0], strict=True))


def same(given: dict[str, float], wanted: dict[str, float]) -> bool:
    return given.keys() == wanted.keys() and all(
        abs(given[k] - v) < 2e-5 for k, v in wanted.items()
    )


def scores(labels: list[dict[str, float]]) -> dict[str, float]:
    assert [x["score"] for x in labels] == sorted((x["score"] for x in labels), reverse=True)
    return {str(x["label"]): x["score"] for x in labels}


# --- TEI ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/", "/invocations"])
def test_tei_answers_one_input_flat_and_a_batch_nested(http: TestClient, home: Path, path: str):
    for one in (TEXT, [TEXT]):
        response = http.post(path, json={"inputs": one, "truncate": None})
        assert same(scores(response.json()), wanted(home, "a"))
    batch = http.post(path, json={"inputs": [[TEXT], ["dull"]]}).json()
    assert [
        same(scores(b), wanted(home, "a", t)) for b, t in zip(batch, (TEXT, "dull"), strict=True)
    ]
    assert response.headers["x-compute-type"] == "cpu"
    assert response.headers["x-compute-tokens"] == "5"
    assert response.headers["x-compute-characters"] == "11"
    assert int(response.headers["x-total-time"]) >= int(response.headers["x-inference-time"])


def test_tei_gives_raw_scores_and_other_models_and_calibrated_ones(http: TestClient, home: Path):
    raw = http.post("/predict?model=b", json={"inputs": TEXT, "raw_scores": True}).json()
    e = {x["label"]: np.exp(x["score"]) for x in raw}
    assert same({k: v / sum(e.values()) for k, v in e.items()}, wanted(home, "b"))
    path = "/predict?model=svm&calibrated="
    loaded = tunelab.load(home / "svm").raw()
    row = dict(zip(loaded.label_names, loaded.predict_proba([TEXT])[0], strict=True))
    assert not same(row, wanted(home, "svm"))
    given = {v: scores(http.post(f"{path}{v}", json={"inputs": TEXT}).json()) for v in "10"}
    assert same(given["1"], wanted(home, "svm"))  # as predict gives it, and as is given unasked
    assert same(given["0"], row)
    plain = http.post("/predict?model=svm", json={"inputs": TEXT}).json()
    assert scores(plain) == given["1"]
    none = http.post("/predict?model=a&calibrated=1", json={"inputs": TEXT})
    assert none.status_code == 422
    assert "calibration.json" in none.json()["error"]
    assert str(home) not in none.text
    assert http.post(f"{path}2", json={"inputs": TEXT}).status_code == 422


UNSURE = "zzz"  # of no known word


def test_a_text_that_is_not_sure_enough_is_not_answered_in_any_form(http: TestClient, home: Path):
    """The threshold lies between the two texts; each protocol has its own way to say nothing."""
    texts = [TEXT, UNSURE]
    sure, unsure = (max(wanted(home, "svm", t).values()) for t in texts)
    assert unsure < ASKED_ABOVE < sure
    at = "abstain=0.1"
    tei = http.post(f"/predict?model=svm&{at}", json={"inputs": [[t] for t in texts]}).json()
    assert scores(tei[0])
    assert tei[1] == []
    assert http.post(f"/predict?model=svm&{at}", json={"inputs": UNSURE}).json() == []
    hub = http.post(f"/models/svm?{at}", json={"inputs": texts}).json()
    assert [len(rows) for rows in hub] == [2, 0]
    vllm = http.post(f"/classify?{at}", json={"model": "svm", "input": texts}).json()["data"]
    assert [row["label"] for row in vllm] == ["good", None]
    assert max(vllm[1]["probs"]) == pytest.approx(unsure)  # what it would have said stays readable
    openai = http.post(f"/v1/moderations?{at}", json={"model": "svm", "input": texts}).json()
    assert [sum(r["categories"].values()) for r in openai["results"]] == [1, 0]
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": texts}
    kserve = http.post(f"/v2/models/svm/infer?{at}", json={"inputs": [tensor]}).json()["outputs"]
    assert kserve[1]["data"] == ["good", ""]
    # A threshold is of probabilities as they are given unasked, whatever else is asked for.
    raw = http.post(f"/classify?{at}&calibrated=0", json={"model": "svm", "input": texts}).json()
    assert [row["label"] for row in raw["data"]] == ["good", None]
    all_of_them = http.post("/classify?abstain=0.2", json={"model": "svm", "input": texts}).json()
    assert None not in [row["label"] for row in all_of_them["data"]]


@pytest.mark.parametrize(
    ("model", "said", "why"),
    [
        ("svm", "0", "between 0 and 1"),
        ("svm", "1", "between 0 and 1"),
        ("svm", "nan", "between 0 and 1"),
        ("svm", "few", "between 0 and 1"),
        ("svm", "0.01", "takes 99 validation rows, found 19"),
        ("a", "0.1", "when it had better abstain is not known"),
    ],
)
def test_an_error_that_cannot_be_kept_is_refused(
    http: TestClient, home: Path, model: str, said: str, why: str
):
    response = http.post(f"/predict?model={model}&abstain={said}", json={"inputs": TEXT})
    assert response.status_code == 422
    assert why in response.json()["error"]
    assert str(home) not in response.text


# As TEI's own tests and README have them; `error_type` as its code writes it.
TEI_REFUSALS = [
    ({"inputs": []}, 400, "Empty", "`inputs` cannot be empty"),
    ({"inputs": [[]]}, 400, "Empty", "`inputs` cannot be empty"),
    ({"inputs": ["a", "b"]}, 422, "Validation", "pair"),
    ({"inputs": ["a", "b", "c"]}, 422, "Validation", "pair"),
    ({"inputs": "good " * 40, "truncate": False}, 422, "Validation",
     "`inputs` must have less than 33 tokens. Given: 42"),
    ({"inputs": [["a"]] * 5}, 422, "Validation", "batch size 5 > maximum allowed batch size 4"),
    ({"inputs": 3}, 422, "Validation", "inputs"),
    ({}, 422, "Validation", "inputs"),
    ({"inputs": "a", "truncation_direction": "Up"}, 422, "Validation", "truncation_direction"),
    ({"inputs": "x" * 5000}, 413, "Validation", "4000 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "kind", "says"), TEI_REFUSALS)
def test_tei_refuses_in_its_form(http: TestClient, body: object, status: int, kind: str, says: str):
    response = http.post("/predict", json=body)
    assert response.status_code == status
    assert response.json()["error_type"] == kind
    assert says in response.json()["error"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 3000, b'{"inputs": "\\ud800"}', b'{"inputs": null}'],
)
@pytest.mark.parametrize("path", ["/predict", "/classify", "/models/a", "/v1/moderations",
                                  "/v2/models/a/infer", "/invocations", "/tokenize"])  # fmt: skip
def test_what_is_no_body_is_refused_everywhere(http: TestClient, path: str, raw: bytes):
    response = http.post(path, content=raw)
    assert response.status_code in {400, 422}
    assert "error" in response.json()


def test_tei_tells_its_model_its_tokens_and_its_health(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
):
    info = http.get("/info").json()
    assert info["model_type"] == {
        "classifier": {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    }
    assert info["max_input_length"] == 32
    (row,) = http.post("/tokenize", json={"inputs": "good films"}).json()
    assert [t["text"] for t in row] == ["[CLS]", "good", "film", "s", "[SEP]"]
    assert row[2] == {"id": row[2]["id"], "text": "film", "special": False, "start": 5, "stop": 9}
    (bare,) = http.post("/tokenize", json={"inputs": "good", "add_special_tokens": False}).json()
    assert [t["text"] for t in bare] == ["good"]
    none = http.post("/tokenize?model=svm", json={"inputs": "x"})
    assert (none.status_code, none.json()["error_type"]) == (422, "Tokenizer")
    assert "no tokenizer" in none.json()["error"]
    on_a_card = replace(service.engine.table["a"], where="cuda")
    monkeypatch.setattr(service.engine, "table", ModelTable({"a": on_a_card}))
    assert http.post("/predict", json={"inputs": TEXT}).headers["x-compute-type"] == "gpu"
    assert [http.get(p).status_code for p in ("/health", "/", "/ping")] == [200] * 3


def test_long_texts_are_read_beside_the_loop(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tunelab.serving.service._READ_AT_ONCE", 5)
    reader = type(service.engine.table["a"].reader)
    places: list[str] = []
    for name in ("read", "tokens"):
        own = getattr(reader, name)

        def told(*a: object, of: Callable[..., object] = own, **k: object):
            places.append(threading.current_thread().name)
            return of(*a, **k)

        monkeypatch.setattr(reader, name, told)
    for path in ("/predict", "/tokenize"):
        for text in ("good", "a good film"):
            assert http.post(path, json={"inputs": text}).status_code == 200
    assert [name.startswith("asyncio_") for name in places] == [False, True] * 2


def counts(http: TestClient) -> dict[str, float]:
    lines = re.findall(r"^(te_\w+|tunelab_\w+)(\{[^}]*\})? (\S+)$", http.get("/metrics").text, re.M)
    out: dict[str, float] = {}
    for name, labels, value in lines:
        if "le=" not in labels:
            out[name] = out.get(name, 0) + float(value)
    return out


def test_every_request_is_counted_once_and_as_what_it_became(http: TestClient):
    before = counts(http)
    http.post("/predict", json={"inputs": TEXT})
    http.post("/predict", json={"inputs": [["a"], ["b"]]})
    http.post("/predict", json={"inputs": []})
    after = counts(http)
    grown = {k: v - before.get(k, 0) for k, v in after.items()}
    assert grown["te_request_count"] == 3
    assert grown["te_request_success"] == 2
    assert grown["te_request_failure"] == 1
    assert grown["te_predict_count"] == 3
    assert grown["te_request_input_length_count"] == 3
    assert grown["te_request_duration_count"] == 2
    assert grown["te_batch_next_size_sum"] == 3
    assert grown["tunelab_model_texts_total"] == 3
    assert after["te_queue_size"] == 0
    http.post("/invocations", json={"input": TEXT, "model": "no such"})
    last = counts(http)
    assert last["te_request_failure"] == after["te_request_failure"] + 1
    assert last["te_request_success"] == after["te_request_success"]


# --- the hub --------------------------------------------------------------------------------


def test_the_hub_is_always_answered_nested(http: TestClient, home: Path):
    for body in ({"inputs": TEXT}, {"inputs": TEXT, "parameters": {}}, {"inputs": [TEXT]}):
        (row,) = http.post("/models/b", json=body).json()
        assert same(scores(row), wanted(home, "b"))
    (one,) = http.post("/models/b", json={"inputs": TEXT, "parameters": {"top_k": 1}}).json()
    assert len(one) == 1
    # huggingface_hub posts to the address that it was given, and takes the first element.
    (row,) = http.post("/", json={"inputs": TEXT, "parameters": {}}).json()
    assert same(scores(row), wanted(home, "a"))
    assert "Models: a, b, svm" in http.post("/models/c", json={"inputs": "x"}).json()["error"]
    assert http.post("/models/c", json={"inputs": "x"}).status_code == 404
    sigmoid = {"inputs": TEXT, "parameters": {"function_to_apply": "sigmoid"}}
    raw = {"inputs": TEXT, "parameters": {"function_to_apply": "none"}}
    (s,), (r,) = (http.post("/models/b", json=b).json() for b in (sigmoid, raw))
    for x, y in zip(s, r, strict=True):
        assert x["score"] == pytest.approx(1 / (1 + np.exp(-y["score"])))


# --- vLLM and OpenAI ------------------------------------------------------------------------


def test_vllm_classifies_texts_and_tokens(http: TestClient, home: Path):
    said = http.post("/classify", json={"model": "b", "input": [TEXT, "dull"]}).json()
    assert set(said) == {"id", "object", "created", "model", "data", "usage"}
    assert re.fullmatch(r"classify-[0-9a-f]{32}", said["id"])
    for i, (row, text) in enumerate(zip(said["data"], (TEXT, "dull"), strict=True)):
        names = tunelab.load(home / "b").label_names
        assert same(dict(zip(names, row["probs"], strict=True)), wanted(home, "b", text))
        best = tunelab.load(home / "b").predict([text])[0]
        assert (row["index"], row["label"], row["num_classes"]) == (i, best, 3)
    assert said["usage"] == {"prompt_tokens": 8, "total_tokens": 8, "completion_tokens": 0,
                             "prompt_tokens_details": None}  # fmt: skip
    ids = [t["id"] for t in http.post("/tokenize", json={"inputs": TEXT}).json()[0]]
    for given in (ids, [ids]):
        again = http.post("/classify", json={"model": "b", "input": given}).json()
        assert again["data"][0]["probs"] == pytest.approx(said["data"][0]["probs"], abs=2e-5)
    for given in ([-1], [10_000], [], [[]], [1] * 33):
        assert http.post("/classify", json={"model": "b", "input": given}).status_code == 400
    unknown = http.post("/classify", json={"model": "c", "input": "x"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "NotFoundError"
    assert unknown.json()["error"]["code"] == 404
    assert http.post("/v1/classify", json={"model": "b", "input": "x"}).status_code == 404


def test_vllm_lists_loads_and_unloads(http: TestClient, home: Path, tiny_bert: Path):
    cards = {m["id"]: m["parent"] for m in http.get("/v1/models").json()["data"]}
    assert cards == {tiny_bert.name: None, "a": tiny_bert.name, "b": tiny_bert.name, "svm": None}
    load = {"lora_name": "new", "lora_path": "b"}
    done = http.post("/v1/load_lora_adapter", json=load)
    assert (done.status_code, done.text) == (200, "Success: LoRA adapter 'new' added successfully.")
    again = http.post("/v1/load_lora_adapter", json=load)
    assert again.status_code == 400
    assert "has already been loaded" in again.json()["error"]["message"]
    inplace = {**load, "lora_path": str(home / "a"), "load_inplace": True}
    assert http.post("/v1/load_lora_adapter", json=inplace).status_code == 200
    said = http.post("/classify", json={"model": "new", "input": TEXT}).json()
    assert said["data"][0]["num_classes"] == 2
    gone = http.post("/v1/unload_lora_adapter", json={"lora_name": "new"})
    assert gone.text == "Success: LoRA adapter 'new' removed successfully."
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "new"}).status_code == 404
    for path, status in (("../..", 403), ("/etc", 403), ("nothing", 404), ("svm/..", 403)):
        bad = http.post("/v1/load_lora_adapter", json={"lora_name": "n", "lora_path": path})
        assert bad.status_code == status, path
        assert str(home) not in bad.text
    assert list(http.get("/v1/models").json()["data"][-1]) == [
        "id", "object", "created", "owned_by", "root", "parent", "permission"
    ]  # fmt: skip
    assert http.get("/v1/models/b").json()["id"] == "b"
    assert http.get("/v1/models/none").status_code == 404


def test_nothing_is_loaded_or_unloaded_without_a_folder_for_it(service: Service):
    fixed = TestClient(make_app(replace(service, adapter_dir=None)))
    load = fixed.post("/v1/load_lora_adapter", json={"lora_name": "n", "lora_path": "a"})
    unload = fixed.post("/v1/unload_lora_adapter", json={"lora_name": "a"})
    others = [fixed.post(f"/v2/repository/models/a/{what}") for what in ("load", "unload")]
    assert [r.status_code for r in (load, unload, *others)] == [403] * 4
    assert "--adapter-dir" in load.json()["error"]["message"]


CHANGES = {
    "/v1/load_lora_adapter": {"lora_name": "new", "lora_path": "b"},
    "/v1/unload_lora_adapter": {"lora_name": "b"},
    "/v2/repository/models/b/load": {},
    "/v2/repository/models/b/unload": {},
}


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:8080"),
        ("null", "127.0.0.1:8080"),
        ("http://127.0.0.1:9999", "127.0.0.1:8080"),
        ("http://evil.example:8080", "evil.example:8080"),  # a name that was pointed here
        ("http://[::1", "[::1"),
        ("", ""),
    ],
)
def test_no_page_of_another_site_changes_the_models(
    http: TestClient, service: Service, path: str, origin: str, host: str
):
    before = dict(service.engine.table.models)
    headers = {"origin": origin, "host": host, "content-type": "text/plain"}
    refused = http.post(path, content=json.dumps(CHANGES[path]), headers=headers)
    assert refused.status_code == 403
    assert "Origin" in refused.text
    assert dict(service.engine.table.models) == before


def test_pages_of_the_server_itself_may_change_the_models(http: TestClient, service: Service):
    path, hosts = "/v2/repository/models/b/load", ("127.0.0.1:8080", "localhost:1", "[::1]:8080")
    for host in hosts:
        own = {"origin": f"http://{host}", "host": host}
        assert http.post(path, headers=own).status_code == 200
    # With a key no other site's page can ask: a server behind a name may be asked by its own.
    keyed = TestClient(make_app(replace(service, keys=("k",))))
    own = {"origin": "https://models.example", "host": "models.example"}
    assert keyed.post(path, headers=own).status_code == 401
    assert keyed.post(path, headers={**own, "authorization": "Bearer k"}).status_code == 200


def test_openai_moderates_any_labels(http: TestClient, home: Path):
    given = [[TEXT, "dull"], [{"type": "text", "text": TEXT}], TEXT]
    for body in given:
        said = http.post("/v1/moderations", json={"input": body}).json()
        first = said["results"][0]
        assert same(first["category_scores"], wanted(home, "a"))
        best = max(first["category_scores"], key=first["category_scores"].__getitem__)
        assert first["categories"] == {k: k == best for k in ("bad", "good")}
        assert first["flagged"] == (best == "bad")


# --- KServe ---------------------------------------------------------------------------------


def infer(http: TestClient, texts: list[str], **more: object) -> httpx.Response:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts, **more}
    return http.post("/v2/models/b/infer", json={"id": "7", "inputs": [tensor]})


def test_kserve_takes_strings_in_json_and_in_binary(http: TestClient, home: Path):
    texts = [TEXT, "hé"]
    said = infer(http, texts).json()
    assert (said["model_name"], said["id"]) == ("b", "7")
    probs, label = said["outputs"]
    assert probs["shape"] == [2, 3]
    names = tunelab.load(home / "b").label_names
    for row, text in zip(np.reshape(probs["data"], (2, 3)), texts, strict=True):
        assert same(dict(zip(names, row, strict=True)), wanted(home, "b", text))
    assert label["data"] == tunelab.load(home / "b").predict(texts)
    binary = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    tensor = {"name": "text", "shape": [2, 1], "datatype": "BYTES",
              "parameters": {"binary_data_size": len(binary)}}  # fmt: skip
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]}).encode()
    sent = {"Inference-Header-Content-Length": str(len(head))}
    again = http.post("/v2/models/b/versions/1/infer", content=head + binary, headers=sent).json()
    assert [(o["name"], o["data"]) for o in again["outputs"]] == [("label", label["data"])]
    for cut in (binary[:-1], binary[:2], b"", binary + b"x"):
        bad = http.post("/v2/models/b/infer", content=head + cut, headers=sent)
        assert bad.status_code == 400
    for length in ("x", "-1", "99999", "²"):
        odd = {"Inference-Header-Content-Length": length.encode()}
        assert http.post("/v2/models/b/infer", content=head, headers=odd).status_code == 400


@pytest.mark.parametrize(
    "more",
    [
        {"datatype": "FP32"},
        {"shape": [3]},
        {"shape": []},
        {"shape": [10**600] * 5},
        {"shape": [10**3] * 600},
        {"shape": [-1, -2]},
        {"data": [1, 2]},
        {"data": None},
    ],
)
def test_kserve_refuses_in_its_form(http: TestClient, more: dict[str, object]):
    bad = infer(http, ["a", "b"], **more)
    assert bad.status_code == 400
    assert set(bad.json()) == {"error"}


def test_kserve_tells_and_changes_its_models(http: TestClient):
    assert http.get("/v2").json()["extensions"] == ["model_repository"]
    assert http.get("/v2/models/b").json()["outputs"][0]["shape"] == [-1, 3]
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/b/ready", "/v2/models/b/versions/1")
    assert [http.get(p).status_code for p in paths] == [200] * 4
    assert [http.get(p).status_code for p in ("/v2/models/c", "/v2/models/b/versions/2")] == [
        404
    ] * 2
    assert http.post("/v2/repository/models/b/load").status_code == 200
    assert http.post("/v2/repository/models/b/unload", content=b"{}").status_code == 200
    assert http.get("/v2/models/b/ready").status_code == 404
    assert http.post("/v2/repository/models/b/load", content=b"{}").status_code == 200
    names = [m["name"] for m in http.post("/v2/repository/index", content=b"").json()]
    assert sorted(names) == ["a", "b", "svm"]


def test_sagemaker_takes_either_body(http: TestClient, home: Path):
    flat = http.post("/invocations", json={"inputs": TEXT}).json()
    assert same(scores(flat), wanted(home, "a"))
    said = http.post("/invocations", json={"model": "b", "input": TEXT}).json()
    assert said["object"] == "list"
    assert http.post("/invocations", json={"input": TEXT, "model": "c"}).status_code == 404


# --- who is let in --------------------------------------------------------------------------


OPEN = ("/", "/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready", "/openapi.json")


def test_a_key_is_asked_for_but_for_health(service: Service):
    locked = TestClient(make_app(replace(service, keys=("one", "zwei-é"))))
    assert [locked.get(p).status_code for p in OPEN] == [200] * len(OPEN)
    assert locked.get("/info").status_code == 401
    assert locked.post("/predict", json={"inputs": "x"}).content == b""
    for path in ("/classify", "/models/a", "/v1/moderations", "/v2/models/a/infer"):
        assert locked.post(path, json={}).status_code == 401
        assert "error" in locked.post(path, json={}).json()
    for right in ("Bearer one", "bearer one", "Bearer zwei-é"):
        headers = {"authorization": right.encode()}
        assert locked.get("/info", headers=headers).status_code == 200, right
    for wrong in ("Bearer two", "Basic one", "one", "Bearer ", "Bearer one two"):
        headers = {"authorization": wrong.encode()}
        assert locked.get("/info", headers=headers).status_code == 401, wrong


def test_what_is_not_there_is_said(http: TestClient):
    assert http.get("/nothing").status_code == 404
    assert "/classify" in http.get("/nothing").json()["error"]
    assert http.get("/predict").status_code == 405


def test_the_description_names_every_door(http: TestClient):
    said = http.get("/openapi.json").json()
    assert {"/predict", "/classify", "/models/{name}", "/v2/models/{name}/infer"} <= set(
        said["paths"]
    )
    body = said["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/TeiBody"}
    assert "inputs" in said["components"]["schemas"]["TeiBody"]["properties"]


def test_a_failure_of_ours_says_nothing_of_the_text(
    service: Service, capsys: pytest.CaptureFixture[str]
):
    def fail(_: object) -> list[np.ndarray]:
        raise ArithmeticError("secret text")

    model = service.engine.table["a"]
    service.engine.load("broken", lambda: replace(model, name="broken"))
    table = service.engine.table
    broken = replace(model, name="broken", runner=fail)
    service.engine.table = type(table)({**table.models, "broken": broken})
    http = TestClient(make_app(service))
    asked = {
        "/predict?model=broken": ({"inputs": "secret text"}, 424),
        "/classify": ({"model": "broken", "input": "secret text"}, 500),
    }
    for path, (body, status) in asked.items():
        response = http.post(path, json=body)
        assert response.status_code == status
        assert "secret" not in response.text
    service.engine.unload("broken")
    errors = capsys.readouterr().err
    assert "ArithmeticError" in errors
    assert "secret" not in errors


def test_who_is_too_many_is_told_when_to_come_again(service: Service):
    go = threading.Event()

    def slow(asked: list[tuple[object, list[object]]]) -> list[np.ndarray]:
        assert go.wait(20)
        return [np.zeros((len(items), 2)) for _, items in asked]

    model = replace(service.engine.table["svm"], name="slow", runner=slow)  # type: ignore[arg-type]
    engine = ServingEngine([model], Limits(queued_tokens=2))
    http = TestClient(make_app(replace(service, engine=engine)))
    first = engine.submit(model, ["x"])
    while engine.queued_texts:
        time.sleep(0.001)
    waits = engine.submit(model, ["x" * 8])
    asked = {
        "/predict": {"inputs": "x"},
        "/classify": {"input": "x"},
        "/models/slow": {"inputs": "x"},
        "/v1/moderations": {"input": "x"},
    }
    for path, body in asked.items():
        busy = http.post(path, json=body)
        assert busy.status_code == 429
        assert int(busy.headers["retry-after"]) >= 1
    tei = http.post("/predict", json={"inputs": "x"}).json()
    assert tei == {"error": "Model is overloaded", "error_type": "Overloaded"}
    go.set()
    assert first.result(10).scores.shape == waits.result(10).scores.shape
    assert http.post("/predict", json={"inputs": "x"}).status_code == 200
    engine.close()
    assert http.get("/health").status_code == 503
    stopped = http.post("/predict", json={"inputs": "x"})
    assert (stopped.status_code, stopped.json()["error_type"]) == (503, "Unhealthy")
