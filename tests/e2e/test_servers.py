"""tunelab.serve, as it is called in Python: by itself, in a with-block, and in an event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import tunelab
from adapters_made import make_svm
from tiny import reviews
from tunelab.core.artifact import open_artifact
from tunelab.core.errors import InputError

TEXT = "a good film"


@pytest.fixture(scope="module")
def svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svm(tmp_path_factory.mktemp("servers") / "mood", reviews(60))


def asked(url: str, model: str, key: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(
        f"{url}/classify", json={"model": model, "input": "a good film"}, headers=headers
    )


def test_a_with_block_serves_in_the_background_and_gives_the_address_back(svm: Path):
    before = set(threading.enumerate())
    models = {"one": svm, "two": open_artifact(svm)}
    with tunelab.serve(models, port=0, background=True, api_keys=["k"]) as server:
        said = asked(server.url, "two", "k").json()["data"][0]
        assert said["probs"] == pytest.approx(
            list(tunelab.load(svm).predict_proba("a good film")[0])
        )
        assert asked(server.url, "two").status_code == 401
        assert "one, two" in repr(server)
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(InputError, match=f"--port {port}: is taken"):
            tunelab.serve(svm, port=port, background=True)
    assert set(threading.enumerate()) <= before
    with pytest.raises(httpx.ConnectError):
        asked(server.url, "one")
    with tunelab.serve([svm], port=port, background=True) as server:
        assert asked(server.url, "mood").status_code == 200
    server.stop()  # once more changes nothing


def test_what_cannot_be_served_leaves_nothing_behind(svm: Path, tmp_path: Path):
    before = set(threading.enumerate())
    for models, more, says in (
        ((), {}, "Nothing to serve"),
        (tmp_path / "none", {}, "no such folder"),
        ([svm, svm], {}, "Two models would be called 'mood'"),
        (svm, {"api_keys": "abc"}, "api_keys"),
        (svm, {"api_keys": [" "]}, "api_keys"),
        (svm, {"flag": ["ugly"]}, "ugly"),
        (svm, {"precision": "half"}, "precision 'half'"),
    ):
        with pytest.raises(tunelab.TunelabError, match=says):
            tunelab.serve(models, port=0, background=True, **more)  # type: ignore[call-overload]
    assert set(threading.enumerate()) <= before


def test_in_an_event_loop_it_serves_until_it_is_interrupted(
    svm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from tunelab.serving.listening import RunningServer

    def interrupted(server: RunningServer) -> None:
        assert asked(server.url, "mood").status_code == 200
        server.stop()

    monkeypatch.setattr(RunningServer, "wait", interrupted)

    async def in_a_notebook() -> None:
        tunelab.serve(svm, port=0)

    asyncio.run(in_a_notebook())
    assert "http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.slow
def test_by_itself_it_blocks_until_the_process_is_told_to_end(svm: Path):
    code = f"import tunelab; tunelab.serve({str(svm)!r}, port=0); print('ended')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert asked(url, "mood").status_code == 200
        process.terminate()
        page, last = process.stdout.read().splitlines()
        assert page.startswith(f"Open the page: {url}/?token=")
        assert last == "ended"
        assert process.wait(30) == 0
