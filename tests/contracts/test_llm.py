"""`llm` against a server on loopback, which answers as its texts say, or fails as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunelab
from tiny import reviews, write_csv
from tunelab.core.errors import ArtifactError, ConfigError, TrialError
from tunelab.core.values import Seeds, Split
from tunelab.methods import METHODS, Task, fit_alone, said_before
from tunelab.methods.llm import drawn_shots
from tunelab.models.chat import Endpoint
from tunelab.models.llm import Prompt, label_in
from tunelab.models.text_classifier import open_classifier

KEY = "sk-secret-of-the-tests"
REFUSED = {"error": {"message": f"no\nsuch key {KEY}"}}


@dataclass
class Server:
    """What it is asked, and what it answers first: (status, headers, body) in their order."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    first: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    says: str | None = None
    url: str = ""

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if self.first:
            return self.first.pop(0)
        text = body["messages"][-1]["content"]
        said = self.says if self.says is not None else f"Label: {label_of(text)}."
        usage = {"prompt_tokens": 100, "completion_tokens": 2}
        return 200, {}, {"choices": [{"message": {"content": said}}], "usage": usage}


def label_of(text: str) -> str:
    from tiny import GOOD

    return "good" if set(text.split()) & set(GOOD) else "bad"


@contextmanager
def listening() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append({"path": self.path, **body})
            server.keys.append(self.headers["authorization"])
            status, headers, value = server.answer(body)
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**headers, "content-length": str(len(raw))}.items():
                self.send_header(name, text)
            self.end_headers()
            with suppress(OSError):  # whoever asked has left
                self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("TUNELAB_LLM_KEY", raising=False)
    monkeypatch.delenv("TUNELAB_LLM_ENDPOINT", raising=False)
    monkeypatch.setattr("tunelab.models.chat.time.sleep", lambda _: None)
    with listening() as one:
        yield one


def part(n: int, seed: int) -> Split:
    rows = reviews(n, seed)
    labels = np.asarray([int(label == "good") for _, label in rows])
    return Split(tuple(f"{seed}-{i}" for i in range(n)), tuple(t for t, _ in rows), labels)


def task(server: Server, **settings: Any) -> Task:
    given = {"endpoint": server.url, "llm_model": "m", "shots": 4, **settings}
    return Task(("bad", "good"), part(12, 0), part(20, 1), None, METHODS["llm"].settings(**given),
                Seeds(1, 2, 3), "accuracy", lambda _: None)  # fmt: skip


# --- what is asked, and what is made of it ----------------------------------------------------


def test_texts_are_asked_with_examples_of_each_class_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = task(server, label_descriptions={"bad": "a dull film"}, price_read=2, price_written=10)
    outcome = fit_alone(METHODS["llm"], job)
    assert len(server.asked) == 20  # validation, and no training text by itself
    first = server.asked[0]
    assert (first["path"], first["model"], first["temperature"]) == ("/v1/chat/completions", "m", 0)
    system, *shots, _ = first["messages"]
    assert system["content"].endswith("Labels:\n- bad: a dull film\n- good")
    assert [m["role"] for m in shots] == ["user", "assistant"] * 4
    assert sorted(m["content"] for m in shots[1::2]) == ["bad", "bad", "good", "good"]
    assert {m["content"] for m in shots[::2]} <= set(job.train.texts)
    assert outcome.details.training_rows == 4
    own: Any = outcome.classifier
    assert own.sure == 21 / 22  # all of 20 right
    texts, labels = part(10, 2).texts, part(10, 2).labels
    scores = own.scores(texts)
    assert (scores.argmax(axis=1) == labels).all()
    np.testing.assert_allclose(np.sort(scores, axis=1), [[1 / 22, 21 / 22]] * 10)
    asked = len(server.asked)
    np.testing.assert_array_equal(own.scores(texts), scores)
    assert len(server.asked) == asked  # kept by content
    # Saved, it asks nobody until somebody is named.
    own.save(tmp_path)
    with pytest.raises(ArtifactError, match="no server is asked that you do not name") as e:
        open_classifier(tmp_path)
    assert "\n" not in str(e.value)
    monkeypatch.setenv("TUNELAB_LLM_ENDPOINT", server.url)
    np.testing.assert_array_equal(open_classifier(tmp_path).classifier.scores(texts), scores)
    monkeypatch.setenv("TUNELAB_LLM_ENDPOINT", "ftp://x")
    with pytest.raises(ArtifactError, match="expected an address"):
        open_classifier(tmp_path)


def test_a_study_shows_what_it_costs_and_keeps_no_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_LLM_KEY", KEY)
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    data = write_csv(tmp_path / "reviews.csv", reviews(60), ("text", "label"))
    prices = {"price_read": 2.0, "price_written": 10.0}
    entry = {"name": "llm", "endpoint": server.url, "llm_model": "m", **prices}
    study = tunelab.compare(
        str(data), methods=[entry, "svm-tfidf"], seeds=1, output_dir=str(tmp_path / "study")
    )
    assert set(server.keys) == {f"Bearer {KEY}"}
    row = study.summary.row("llm")
    estimate = row.estimates["price_per_1000_texts"]
    assert estimate is not None
    assert estimate.value == pytest.approx(1000 * (100 * 2 + 2 * 10) / 1e6)
    speed = row.estimates["texts_per_second"]
    assert speed is not None
    assert speed.value < 1e4  # of the requests, not of what was kept of them
    said = [w for w in study.summary.warnings if "asks http://127.0.0.1" in w]
    assert "was shown 8 training rows" in said[0]
    assert "price_per_1000_texts" in (tmp_path / "study" / "results.csv").read_text()
    written = [f for f in tmp_path.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]
    assert written == []


def test_what_is_sent_is_said_before(server: Server) -> None:
    from tunelab.core.values import MethodSpec

    settings = {"endpoint": server.url, "llm_model": "m", "shots": 1, "price_read": 1.0}
    spec = MethodSpec("llm", "llm", settings)
    (line,) = said_before([spec, MethodSpec("svm-tfidf", "svm-tfidf", {})], ["x" * 400] * 5000)
    assert f"sends 5,000 texts a seed, and 1 training text beside each, to {server.url}" in line
    assert "about 1.00 million tokens, about 1.00 at the price given" in line
    taught = {"teacher": "llm", "teacher_settings": settings}
    (line,) = said_before([MethodSpec("distil", "distil", taught)], ["x"] * 9)
    assert server.url in line
    assert line.endswith("the training texts and what is made of them instead.")
    assert said_before([MethodSpec("distil", "distil", {})], ["x"] * 9) == ()
    assert server.asked == []


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("good", 1), (" Good.\n", 1), ("**good**", 1), ("Label: good", 1), ("very good", 2),
        ("It is very good!", 2), ("goodness", None), ("bad or good", None), ("", None),
        ("0", None), ("it's BAD", 0),
    ],
)  # fmt: skip
def test_which_label_an_answer_names(answer: str, label: int | None) -> None:
    assert label_in(answer, ("bad", "good", "very good")) == label


def test_labels_that_differ_by_case_alone() -> None:
    assert label_in("US", ("us", "US")) == 1
    assert label_in("Us", ("us", "US")) is None


def test_an_answer_without_a_label_says_nothing_of_any(server: Server) -> None:
    job = task(server)
    outcome = fit_alone(METHODS["llm"], job)
    server.says = "I would rather not say."
    scores = outcome.classifier.scores(["a text that was never asked"])
    np.testing.assert_array_equal(scores, [[0.5, 0.5]])
    with pytest.raises(TrialError, match="none of 20 answers names a label") as e:
        fit_alone(METHODS["llm"], task(server, instruction="Say what you like."))
    assert "\n" not in str(e.value)


def test_examples_are_of_all_classes_in_turn() -> None:
    rows = drawn_shots(part(12, 0), 5, seed=1)
    labels = part(12, 0).labels[list(rows)]
    assert sorted(np.bincount(labels).tolist()) == [2, 3]
    assert rows == drawn_shots(part(12, 0), 5, seed=1)
    assert drawn_shots(part(12, 0), 0, seed=1) == ()
    assert len(drawn_shots(part(12, 0), 100, seed=1)) == 12


# --- what goes wrong --------------------------------------------------------------------------


def ask(server: Server, **more: Any) -> str:
    prompt = Prompt("Say.", (), 100)
    text = f"text {len(server.asked)} of {server.url}"
    return Endpoint(server.url, "m", **more).ask(prompt.messages(text)).text


def test_who_asks_to_wait_is_asked_again_when_it_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tunelab.models.chat.time.sleep", waited.append)
    server.first = [
        (429, {"retry-after": "7"}, {}),
        (503, {}, {}),
        (429, {"retry-after": "9999"}, {}),
    ]
    assert ask(server) == "Label: bad."
    assert waited == [7.0, 2.0, 60.0]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, REFUSED, r"refused the key in TUNELAB_LLM_KEY \(401: no such key \*\*\*\)"),
        (404, {"error": {"message": "no model m"}}, r"has no such model, .*\(404: no model m\)"),
        (400, {}, r"refused to answer \(400: \{\}\)"),
        (302, {}, "sends on to another address, which is not asked"),
        (200, b"<html>", "expected a chat completion .*'<html>'"),
        (200, {"choices": []}, "expected a chat completion"),
        (200, {"choices": [{"message": None}]}, "expected a chat completion"),
    ],
)
def test_a_refusal_is_a_line_without_the_key(
    status: int, body: Any, said: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_LLM_KEY", KEY)
    server.first = [(status, {"location": "http://127.0.0.1:9/"}, body)]
    with pytest.raises(TrialError, match=said) as e:
        ask(server)
    assert len(server.asked) == 1  # and not again
    assert "\n" not in str(e.value)
    assert KEY not in str(e.value)


def test_who_does_not_answer_is_asked_so_often(server: Server) -> None:
    server.first = [(500, {}, {})] * 9
    with pytest.raises(TrialError, match=r"refused to answer \(500: \{\}\); asked 3 times"):
        ask(server, tries=3)
    assert len(server.asked) == 3
    server.first = []
    slow = Server.answer

    def late(self: Server, body: dict[str, Any]) -> Any:
        threading.Event().wait(0.3)
        return slow(self, body)

    server.answer = late.__get__(server)  # type: ignore[method-assign]
    with pytest.raises(TrialError, match=r"did not answer \(no answer in time\); asked 2 times"):
        ask(server, tries=2, timeout=0.1)
    nobody = Endpoint("http://127.0.0.1:9", "m", tries=1)
    with pytest.raises(TrialError, match=r"did not answer .*refused"):
        nobody.ask([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "an address such as"),
        ("localhost:8000", "an address such as"),
        ("ftp://x/v1", "an address such as"),
        ("http://x:99999/v1", "an address such as"),
        ("http://me:word@x/v1", "without a password"),
        ("https://x/v1?key=abc", "without a password or query"),
        ("http://x/v1\nHost: y", "an address such as"),
    ],
)
def test_an_address_that_is_none(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        METHODS["llm"].settings(**{"endpoint": url, "llm_model": "m"})


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://example.invalid/v1", KEY, "https:// alone"),
        ("http://127.0.0.1:9", "two words", "one word of ASCII"),
    ],
)
def test_a_key_that_is_not_sent(
    url: str, key: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_LLM_KEY", key)
    with pytest.raises(ConfigError, match=said) as e:
        Endpoint(url, "m", tries=1).ask([{"role": "user", "content": "x"}])
    assert key not in str(e.value)


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "reviews.csv", reviews(60), ("text", "label"))
    with pytest.raises(ConfigError, match=r"endpoint: missing\. It has to be given\.") as e:
        tunelab.compare(str(data), methods=["llm"], output_dir=str(tmp_path / "study"))
    assert "llm_model: missing" in str(e.value)
    assert not (tmp_path / "study").exists()
