"""tunelab serve and load-test as a user types them: what is refused, what is said, how it ends."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from adapters_made import make_adapter, make_svm
from commands import Said
from serving import running_server
from tiny import reviews

Cli = Callable[..., Said]


@pytest.fixture(scope="module")
def svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svm(tmp_path_factory.mktemp("serve") / "mood", reviews(60))


def refused(said: Said, *words: str) -> None:
    assert said.code == 2
    assert said.out == ""
    (line,) = said.faults
    assert line.startswith("tunelab: ")
    assert all(word in line for word in words), line


def test_what_cannot_be_served_is_said_in_one_line(cli: Cli, svm: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "keys").write_text("\n")
    refused(cli("serve"), "Nothing to serve", "tunelab serve out")
    refused(cli("serve", tmp_path / "none", "--port", 0), "no such folder")
    refused(cli("serve", tmp_path / "empty", "--port", 0), "expected a classifier")
    refused(cli("serve", svm, svm, "--port", 0), "Two models would be called 'mood'")
    refused(cli("serve", svm, "--port", 0, "--api-key-file", tmp_path / "keys"), "found none")
    refused(cli("serve", svm, "--port", 0, "--adapter-dir", tmp_path / "no"), "--adapter-dir")
    refused(cli("serve", svm, "--port", 0, "--flag", "ugly"), "--flag ugly", "bad, good")
    refused(cli("serve", svm, "--host", "no.such.host.invalid"), "--host", "no such address")
    refused(cli("serve", f"a b={svm}", "--port", 0), "'a b' is no name")


def test_a_port_that_is_taken_is_said(cli: Cli, svm: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(cli("serve", svm, "--port", port), f"--port {port}: is taken")


def test_the_extra_that_is_missing_is_named(cli: Cli, svm: Path, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "uvicorn" else find(name, *a),
    )
    refused(cli("serve", svm), "serve needs uvicorn", 'pip install "starlette>=')


def test_load_test_refuses_what_is_no_server(cli: Cli):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    refused(cli("load-test", url), "expected a tunelab server")
    for address in ("ftp://x", "http://x:99999", "http://[::1"):
        refused(cli("load-test", address), "expected an address")
    refused(cli("load-test", url, "--clients", "1,x"), "--clients 1,x")


def test_a_server_from_start_to_end(cli: Cli, svm: Path, tmp_path: Path):
    """Open to others without a key it warns; it logs no text; what it took it answers."""
    log = tmp_path / "log"
    with running_server(log, svm, "--host", "0.0.0.0") as server:  # noqa: S104  that is the point
        url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        page = httpx.get(url, headers={"accept": "text/html,*/*"})
        assert "<title>tunelab serve</title>" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert httpx.get(url).content == b""
        said = cli("load-test", url, "--clients", "1,4", "--seconds", "0.3", "--json")
        assert said.code == 0, said.err
        figures = json.loads(said.out)
        assert [f["clients"] for f in figures] == [1, 4]
        assert all(f["answers"] and not f["failed"] and f["p50"] <= f["p99"] for f in figures)
        table = cli("load-test", url, "--clients", "2", "--seconds", "0.2").out
        assert "texts/s" in table
        refused(cli("load-test", url, "--model", "x"), "expected one of mood")
        codes: list[int] = []

        def client() -> None:
            with httpx.Client() as http:
                try:
                    while True:
                        body = {"inputs": [["secret words"]] * 32}
                        codes.append(http.post(f"{url}/predict", json=body).status_code)
                except httpx.TransportError:  # it is gone: nothing was taken
                    pass

        clients = [threading.Thread(target=client) for _ in range(4)]
        for each in clients:
            each.start()
        while len(codes) < 20:
            pass
        assert server.stop() == 0
        for each in clients:
            each.join(10)
        assert set(codes) <= {200, 503}
    lines = log.read_text("utf-8").splitlines()
    assert len(lines) == 1
    assert "asks for no key" in lines[0]


def test_a_key_opens_a_server(svm: Path, tmp_path: Path):
    with running_server(tmp_path / "log", svm, env={"TUNELAB_API_KEYS": "one,two"}) as server:
        assert httpx.get(f"{server.url}/info").status_code == 401
        headers = {"authorization": "Bearer two"}
        assert httpx.get(f"{server.url}/info", headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.slow
def test_no_request_of_the_description_breaks_the_server(tiny_bert: Path, tmp_path: Path):
    """Fuzzed from /openapi.json: never a 5xx, never a status that it does not name."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    folder = make_adapter(tmp_path / "a", tiny_bert, ("x", "y"), 1)
    with running_server(tmp_path / "log", folder) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

        run = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        for result in schema.get_all_operations():
            operation = result.ok()

            @run
            @given(case=operation.as_strategy())
            def check(case: schemathesis.Case) -> None:
                response = case.call()
                assert response.status_code < 500, (case.body, response.text)
                said = {*case.operation.definition.raw["responses"]}
                assert str(response.status_code) in said, (case.body, response.status_code)

            check()
        assert httpx.get(f"{server.url}/health").status_code == 200
