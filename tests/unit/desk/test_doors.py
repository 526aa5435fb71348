"""The page's doors in one process: who may ask, words left out, files labelled."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import tunelab
from adapters_made import make_adapter, make_svm
from tiny import reviews, write_csv
from tunelab.desk.desk import Desk
from tunelab.desk.doors import DESK_DOORS, desk_routes
from tunelab.desk.runs import RunsOfStudies
from tunelab.desk.session import Session
from tunelab.desk.studies import StudiesOfFolders
from tunelab.models.explained import spans_of_words
from tunelab.serving.engine import BatchFigures
from tunelab.serving.listening import ServerSettings, make_service
from tunelab.serving.loading import NamedFolder
from tunelab.serving.refusal import Limits
from tunelab.serving.service import Service
from tunelab.serving.web import make_app

HERE = "http://testserver"
NASTY = "</script><b onclick=x>'\"&"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    root = tmp_path_factory.mktemp("desk")
    make_adapter(root / "a", tiny_bert, ("bad", NASTY), 1)
    make_svm(root / "svm", reviews(60))
    return root


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    limits = Limits(texts=4, batch_tokens=600)
    settings = ServerSettings(limits=limits, keys=("secret",))
    made = make_service([NamedFolder(n, home / n) for n in ("a", "svm")], settings)
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    scratch = tmp_path_factory.mktemp("scratch")
    return Desk(Session(8080), scratch, StudiesOfFolders((), RunsOfStudies(scratch)))


@pytest.fixture
def stranger(service: Service, desk: Desk) -> TestClient:
    return TestClient(make_app(service, more=desk_routes(desk, service)), base_url=HERE)


@pytest.fixture
def http(stranger: TestClient, desk: Desk) -> TestClient:
    page = stranger.get("/", params={"token": desk.session.token}, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert page.url == f"{HERE}/"  # the token is not left in the address
    return stranger


# --- who may ask ----------------------------------------------------------------------------


def test_the_page_runs_and_loads_nothing_but_itself(stranger: TestClient):
    page = stranger.get("/", headers={"accept": "text/html,*/*"})
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)
    assert stranger.get("/").content == b""  # a sign of life, for those who show no pages


@pytest.mark.parametrize("door", DESK_DOORS, ids=lambda d: d.path)
def test_a_stranger_is_let_in_nowhere(stranger: TestClient, door: object):
    method, path = door.method, door.path  # type: ignore[attr-defined]
    refused = stranger.request(method, path, content=b"{}")
    assert refused.status_code == 401
    wrong = {"cookie": "tunelab-8080=wrong"}
    assert stranger.request(method, path, content=b"{}", headers=wrong).status_code == 401
    token = stranger.post("/desk/session", json={"token": "wrong"})
    assert token.status_code == 401
    assert "set-cookie" not in token.headers


@pytest.mark.parametrize("door", DESK_DOORS, ids=lambda d: d.path)
@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
     {"origin": "http://testserver:81"}, {"sec-fetch-site": "same-site"}],
)  # fmt: skip
def test_another_page_is_refused_even_with_the_cookie(
    http: TestClient, door: object, headers: dict[str, str]
):
    method, path = door.method, door.path  # type: ignore[attr-defined]
    assert http.request(method, path, content=b"{}", headers=headers).status_code == 403


def test_the_cookie_is_for_this_server_and_no_script(stranger: TestClient, desk: Desk):
    given = {"token": f" http://x/?token={desk.session.token} "}  # the whole link may be pasted
    response = stranger.post("/desk/session", json=given, headers={"origin": HERE})
    assert response.status_code == 204
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("tunelab-8080=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/desk/state").json()["opened"] is True


def test_a_client_with_a_key_may_try(stranger: TestClient):
    key = {"authorization": "Bearer secret"}
    state = stranger.get("/desk/state", headers=key).json()
    assert state["opened"] is False
    assert [m["name"] for m in state["models"]] == ["a", "svm"]
    tried = stranger.post("/desk/try", headers=key, json={"text": "a good film"})
    assert tried.json()["model"] == "a"
    assert stranger.post("/desk/label", headers=key, content=b"text\nx\n").status_code == 401


# --- try ------------------------------------------------------------------------------------


@contextmanager
def batches_of(service: Service) -> Iterator[list[BatchFigures]]:
    """The batches that are computed inside, at least one."""
    batches: list[BatchFigures] = []
    said = threading.Event()

    def hear(batch: BatchFigures) -> None:
        batches.append(batch)
        said.set()

    service.engine.on_batch, before = hear, service.engine.on_batch
    try:
        yield batches
        assert said.wait(10)  # it is told after the answer
    finally:
        service.engine.on_batch = before


@pytest.mark.parametrize("name", ["a", "svm"])
def test_words_are_left_out_one_by_one_in_one_batch(
    http: TestClient, service: Service, home: Path, name: str
):
    text = "a good film, \N{GRINNING FACE} dull  plot"
    with batches_of(service) as batches:
        said = http.post("/desk/try", json={"model": name, "text": text}).json()
    assert [b.texts for b in batches] == [7]  # six words
    loaded = tunelab.load(home / name)
    p = loaded.predict_proba([text])[0]
    assert said["labels"] == list(loaded.label_names)
    assert said["probabilities"] == pytest.approx(list(p), abs=2e-5)
    best = int(np.argmax(p))
    assert [text[w["start"] : w["stop"]] for w in said["words"]] == text.split()
    without = ["good film, \N{GRINNING FACE} dull  plot", "a film, \N{GRINNING FACE} dull  plot",
               "a good \N{GRINNING FACE} dull  plot", "a good film, dull  plot",
               "a good film, \N{GRINNING FACE} plot",
               "a good film, \N{GRINNING FACE} dull"]  # fmt: skip
    expected = loaded.predict_proba(without)[:, best]
    assert [w["without"] for w in said["words"]] == pytest.approx(list(expected), abs=2e-5)
    odds = [np.log(q / (1 - q)) for q in (p[best], *expected)]
    assert [w["moved"] for w in said["words"]] == pytest.approx(
        [odds[0] - o for o in odds[1:]], abs=1e-3
    )


def test_a_long_text_still_fits_into_one_batch(http: TestClient, service: Service):
    with batches_of(service) as batches:
        said = http.post("/desk/try", json={"model": "a", "text": "film " * 90}).json()
    assert len(batches) == 1
    assert batches[0].tokens <= 600
    assert said["cut"]
    assert said["tokens"] == 32
    assert len(said["words"]) == 15  # 90 words in groups of six


def test_words_of_every_script_are_told_apart():
    def words(text: str, most: int = 100) -> list[str]:
        return [text[a:b] for a, b in spans_of_words(text, most)]

    assert words(" it's\tgood\n") == ["it's", "good"]
    assert words("很好 film") == ["很", "好", "film"]
    assert words("  ") == []
    assert words("a b c d e", 2) == ["a b c", "d e"]


def test_a_text_without_words_has_probabilities_all_the_same(http: TestClient):
    said = http.post("/desk/try", json={"model": "svm", "text": " "}).json()
    assert said["words"] == []
    assert sum(said["probabilities"]) == pytest.approx(1)
    assert http.post("/desk/try", json={"model": "none", "text": "a"}).status_code == 404
    assert http.post("/desk/try", content=b'{"text": "\\ud800"}').status_code == 400


# --- file -----------------------------------------------------------------------------------


def label(http: TestClient, content: bytes, **query: str) -> list[dict[str, object]]:
    response = http.post("/desk/label", params=query, content=content)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_file_is_labelled_as_predict_does(
    http: TestClient, desk: Desk, home: Path, tmp_path: Path
):
    texts = [NASTY, "=cmd()", "", *(t for t, _ in reviews(150, 3))]
    path = write_csv(tmp_path / "in.csv", [(i, t) for i, t in enumerate(texts)], ["id", "text"])
    head, *windows, end = label(http, path.read_bytes(), model="svm", name="../../in.csv")
    assert (head["rows"], head["text_column"]) == (153, "text")
    assert [w["done"] for w in windows] == [64, 128, 153]
    shown = [row for w in windows for row in w["rows"]]  # type: ignore[attr-defined]
    assert [row["text"] for row in shown] == texts
    got = http.get("/desk/labelled", params={"file": str(end["file"])})
    assert 'filename="in-labelled.csv"' in got.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(got.text)))
    p = tunelab.load(home / "svm").predict_proba(texts)
    assert [float(r["probability"]) for r in rows] == pytest.approx(list(p.max(axis=1)), abs=2e-5)
    assert [r["predicted_label"] for r in rows] == tunelab.load(home / "svm").predict(texts)
    assert rows[1]["text"] == "'=cmd()"  # no spreadsheet computes it
    assert all(f.is_relative_to(desk.scratch) for f in desk.scratch.rglob("*.csv"))


def test_only_the_last_files_are_kept(http: TestClient, desk: Desk):
    first = label(http, b"text\na\n", model="svm", name="x.csv")[-1]["file"]
    for _ in range(4):
        label(http, b"text\na\n", model="svm", name="x.csv")
    assert http.get("/desk/labelled", params={"file": str(first)}).status_code == 404
    assert len(list(desk.scratch.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "content", "query", "said"),
    [
        ("x.csv", b"a,b\n1,2\n", {}, "text"),
        ("x.csv", b"text\nx\n", {"text_column": "no"}, "no"),
        ("x.exe", b"text\nx\n", {}, ".exe"),
        ("", b"", {}, "ending"),
        ("x.csv", b"text\n\xff\xfe\x00\n", {}, "x.csv"),
        ("x.csv", b"text\nx\n", {"model": "none"}, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_labelled_is_refused_in_a_line(
    http: TestClient,
    desk: Desk,
    *,
    name: str,
    content: bytes,
    query: dict[str, str],
    said: str,
):
    before = set(desk.scratch.iterdir())
    query = {"model": "svm", **query}
    refused = http.post("/desk/label", params={"name": name, **query}, content=content)
    assert refused.status_code in {400, 404}
    assert said in refused.json()["error"]
    assert set(desk.scratch.iterdir()) == before
