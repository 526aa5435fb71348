"""The page's studies: which are seen, what is said of them, what runs, how one begins."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from commands import run_here
from studies import METHODS, make_study
from tiny import reviews, write_csv
from tunelab.core.run_log import RUN_LOG, LogReader, writing_run_log
from tunelab.desk import proposing
from tunelab.desk.desk import Desk
from tunelab.desk.doors import desk_routes
from tunelab.desk.proposing import ProposedStudy
from tunelab.desk.runs import RunsOfStudies
from tunelab.desk.session import Session
from tunelab.desk.studies import StudiesOfFolders
from tunelab.serving.listening import ServerSettings, make_service
from tunelab.serving.service import Service
from tunelab.serving.web import make_app
from tunelab.stats.metrics import METRICS

NASTY = "</script><b onclick=x>'\"&"


def study_at(place: Path, **kind: Any) -> None:
    made = make_study(place.parent / f".{place.name}", **kind)
    made.rename(place)
    shutil.rmtree(place.parent / f".{place.name}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies: two levels, one damaged, and one that leads out of it."""
    above = tmp_path_factory.mktemp("above")
    folder = above / "runs"
    (folder / "deeper").mkdir(parents=True)
    methods = [METHODS[0], replace(METHODS[2], label=NASTY)]
    study_at(folder / "one", methods=methods, seeds=2, rows=60)
    study_at(folder / "deeper" / "two", methods=methods[:1], seeds=2, rows=60)
    study_at(above / "outside", methods=methods[:1], seeds=1, rows=60)
    (folder / "link").symlink_to(above / "outside")
    study_at(folder / "broken", methods=methods[:1], seeds=1, rows=60)
    (folder / "broken" / "data.json").write_text("{")
    (folder / "deeper" / "two" / "report.html").symlink_to(above / "outside" / "study.yaml")
    (folder / "one" / "report.html").write_text("<script>fetch('/desk/studies')</script>")
    comparison = {"headline": f"Take {NASTY}"}
    (folder / "one" / "comparison.json").write_text(json.dumps(comparison))
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = make_service([], ServerSettings(may_be_empty=True))
    yield made
    made.engine.close()


@pytest.fixture
def desk(root: Path, tmp_path: Path) -> Desk:
    studies = StudiesOfFolders((root,), RunsOfStudies(tmp_path))
    return Desk(Session(8080), tmp_path, studies)


@pytest.fixture
def http(desk: Desk, service: Service) -> TestClient:
    client = TestClient(make_app(service, more=desk_routes(desk, service)))
    client.cookies.set(desk.session.cookie, desk.session.token)
    return client


# --- which are seen -------------------------------------------------------------------------


def test_studies_below_the_folder_are_listed_and_no_other(http: TestClient, root: Path):
    lines = {s["key"]: s for s in http.get("/desk/studies").json()["studies"]}
    assert set(lines) == {"runs/one", "runs/deeper/two", "runs/broken"}
    one = lines["runs/one"]
    assert (one["state"], one["done"], one["failed"], one["missing"]) == ("done", 4, 0, 0)
    assert one["headline"] == f"Take {NASTY}"
    assert lines["runs/broken"]["state"] == "damaged"
    assert "data.json" in lines["runs/broken"]["fault"]


def test_a_study_is_said_with_its_trials(http: TestClient):
    said = http.get("/desk/study", params={"study": "runs/one"}).json()
    names = [t["name"] for t in said["trials"]]
    assert set(names) == {"svm-tfidf seed 0", "svm-tfidf seed 1",
                          f"{NASTY} seed 0", f"{NASTY} seed 1"}  # fmt: skip
    assert all(0 < t["score"] < 1 and t["status"] == "done" for t in said["trials"])
    assert said["metric"] == "accuracy"
    assert said["has_report"]
    broken = http.get("/desk/study", params={"study": "runs/broken"}).json()
    assert broken["trials"] == []
    assert "data.json" in broken["line"]["fault"]


PATHS = ("", ".", "..", "runs", "runs/../../outside", "../outside", "runs/link", "/etc", "outside",
         "runs/one/../../outside", "runs\\one", "runs/one\x00", "%2e%2e/outside")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("door", ["study", "report", "events"])
def test_no_path_leads_out_of_the_folders(http: TestClient, door: str, path: str):
    assert http.get(f"/desk/{door}", params={"study": path}).status_code == 404


@pytest.mark.parametrize("door", ["pause", "go-on", "load"])
def test_nothing_is_changed_outside_of_the_folders(http: TestClient, door: str):
    for path in PATHS:
        assert http.post(f"/desk/{door}", json={"study": path}).status_code == 404


def test_a_report_can_reach_nothing_of_the_server(http: TestClient):
    report = http.get("/desk/report", params={"study": "runs/one"})
    assert report.status_code == 200
    policy = report.headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    # One that is a link to somewhere else is none.
    assert http.get("/desk/report", params={"study": "runs/deeper/two"}).status_code == 404


# --- what runs ------------------------------------------------------------------------------


def test_a_study_that_another_process_runs_is_seen_to_run(http: TestClient, root: Path):
    folder = root / "deeper" / "two"
    with writing_run_log(folder):
        one = http.get("/desk/study", params={"study": "runs/deeper/two"}).json()
        assert one["line"]["state"] == "running"
        assert not one["has_model"]  # it is not loaded from under a run
        again = http.post("/desk/go-on", json={"study": "runs/deeper/two"})
        assert again.status_code == 400
        assert "runs already" in again.json()["error"]
    (folder / RUN_LOG).unlink()
    assert http.post("/desk/pause", json={"study": "runs/deeper/two"}).status_code == 400


def test_events_come_as_they_are_said(http: TestClient, desk: Desk, root: Path):
    with writing_run_log(root / "one") as write:
        write({"event": "start", "trial_id": NASTY})
        threading.Timer(0.5, lambda: write({"event": "note", "text": "later"})).start()
        threading.Timer(1.5, desk.stopping.set).start()
        response = http.get("/desk/events", params={"study": "runs/one"})
    (root / "one" / RUN_LOG).unlink()
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [json.loads(x[6:]) for x in response.text.split("\n\n") if x.startswith("data: ")]
    assert [x["event"] for x in lines] == ["run", "start", "note"]
    assert lines[1]["trial_id"] == NASTY


# --- a new one ------------------------------------------------------------------------------


def upload(http: TestClient, content: bytes, name: str) -> str:
    response = http.post("/desk/upload", params={"name": name}, content=content)
    assert response.status_code == 200, response.text
    return str(response.json()["data"])


def test_a_dropped_file_is_kept_among_the_studies(http: TestClient, root: Path):
    assert upload(http, b"text,label\na,b\n", "../../x y.csv") == "x_y.csv"
    assert upload(http, b"text,label\na,b\n", "x y.csv") == "x_y.csv"  # the same
    assert upload(http, b"text,label\na,c\n", "x y.csv") == "x_y-2.csv"
    assert upload(http, b"1", "z.csv.gz") == "z.csv.gz"
    assert upload(http, b"2", "z.csv.gz") == "z-2.csv.gz"
    assert upload(http, b"1", "C:\\temp\\.hidden") == "hidden"
    offered = http.get("/desk/new").json()
    assert offered["files"] == ["hidden", "x_y-2.csv", "x_y.csv", "z-2.csv.gz", "z.csv.gz"]
    assert offered["files"] == sorted(p.name for p in (root / "data").iterdir())
    usual = [m["name"] for m in offered["methods"] if m["usual"]]
    assert set(usual) == {"svm-tfidf", "svm", "full", "lora"}


def test_bases_and_metrics_may_be_chosen(
    http: TestClient, desk: Desk, tiny_bert: Path, tmp_path: Path
):
    """A base that lies among the studies, a hub id, and no other folder of the machine."""
    home = tmp_path / "home"
    shutil.copytree(tiny_bert, home / "own" / "base")
    shutil.copytree(tiny_bert, home / "adapted")
    (home / "adapted" / "adapter_config.json").write_text("{}")
    offered = proposing.offered(home)
    assert offered.bases[0] == "minilm"
    assert "own/base" in offered.bases
    assert "adapted" not in offered.bases
    study = ProposedStudy("x", "demo", ("lora",), 3, model="own/base", metric="f1_macro")
    assert study.keys(home)["model"] == str(home / "own" / "base")
    assert "--metric=f1_macro" in study.words(home)
    assert replace(study, model="owner/name@v1").keys(home)["model"] == "owner/name@v1"
    assert {"model", "metric"}.isdisjoint(ProposedStudy("x", "demo", ("lora",), 3).keys(home))
    metrics = http.get("/desk/new").json()["metrics"]
    assert metrics[0] == {"name": "accuracy", "label": "accuracy"}
    assert {m["name"] for m in metrics} == set(METRICS)


def test_what_the_gate_says_is_said(http: TestClient, tmp_path: Path):
    rows = [*reviews(60), (f"a good {NASTY} film", NASTY), (f"a good {NASTY} scene", NASTY)]
    rows += [(f"{NASTY} {i}", NASTY) for i in range(20)]
    path = write_csv(tmp_path / "r.csv", [*rows, rows[0]], ["what", "kind"])
    name = upload(http, path.read_bytes(), "gate.csv")
    seen = http.post("/desk/look", json={"data": name}).json()
    assert seen["columns"] == ["what", "kind"]
    taken = {"text_column": "what", "label_column": "kind"}
    assert {k: seen[k] for k in taken} == taken, seen["fault"]
    assert sum(seen["rows"].values()) == 83
    assert seen["labels"][NASTY] == 22
    assert any(f["check"] for f in seen["findings"])
    wrong = http.post("/desk/look", json={"data": name, "label_column": "no"}).json()
    assert "no" in wrong["fault"]
    assert wrong["columns"] == ["what", "kind"]
    for strange in ("../one/study.yaml", "/etc/passwd", "none.csv", ".", ""):
        assert http.post("/desk/look", json={"data": strange}).status_code == 404


def proposed(**more: object) -> dict[str, object]:
    return {"name": "new", "data": "plan.csv", "methods": ["svm-tfidf"], "seeds": 2, **more}


def test_a_plan_is_what_dry_run_says_and_its_command_runs_the_same(
    http: TestClient, root: Path, tmp_path: Path
):
    path = write_csv(tmp_path / "r.csv", reviews(80), ["text", "label"])
    upload(http, path.read_bytes(), "plan.csv")
    said = http.post("/desk/plan", json=proposed(text_column="text"))
    plan = said.json()
    assert plan["trials"] == 1, said.text  # no seed changes it
    assert plan["finds"] > 0
    assert "s" in plan["takes"]
    dry = run_here(*shlex.split(plan["command"])[1:], "--dry-run")
    assert dry.code == 0, dry.err
    printed = " ".join(dry.err.split())
    for line in plan["lines"]:
        for each in line["lines"]:
            assert " ".join(each.split()) in printed or "run:" in each  # times may differ
    assert not (root / "new").exists()


def test_a_command_sets_the_keys_that_were_planned(root: Path):
    from tunelab.cli.compare import compare_command
    from tunelab.cli.flags import take_study_keys

    study = ProposedStudy("x", "demo", ("lora", "svm"), 3, "-a b", "l,", False, True, "20m",
                          "minilm", "f1_macro")  # fmt: skip
    context = compare_command.make_context("compare", study.words(root)[1:])
    given = {k: v for k, v in context.params.items() if k not in {"what", "sets", "yes"}}
    for name in ("dry_run", "quiet"):
        given.pop(name)
    keys, settings = take_study_keys(given)
    set_there = {k: v for k, v in keys.items() if v is not None}
    assert set_there | {"data.source": context.params["what"]} == study.keys(root)
    assert not settings


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "../new"}, "is no name"),
        ({"name": "data"}, "where dropped files lie"),
        ({"name": ".x"}, "is no name"),
        ({"name": "one"}, "is there already"),
        ({"methods": []}, "methods"),
        ({"seeds": 0}, "seeds"),
        ({"data": "../one/rows.parquet"}, "no such file"),
        ({"model": "/etc"}, "no such base"),
        ({"model": "tests/unit"}, "no such base"),
        ({"model": "../../x"}, "no such base"),
        ({"model": "~/x"}, "no such base"),
    ],
)
@pytest.mark.parametrize("door", ["plan", "begin"])
def test_what_cannot_be_run_is_refused_before(
    http: TestClient, desk: Desk, root: Path, *, door: str, more: dict[str, object], said: str
):
    before = sorted(p.name for p in root.iterdir())
    refused = http.post(f"/desk/{door}", json=proposed(**{"data": "demo", **more}))
    assert refused.status_code in {400, 404}
    assert said in refused.json()["error"]
    assert sorted(p.name for p in root.iterdir()) == before
    assert not desk.studies.runs.folders


@pytest.mark.parametrize(
    ("more", "said"),
    [({"methods": ["no-such"]}, "no-such"), ({"budget": "soon"}, "budget"),
     ({"metric": "no-such"}, "no-such"), ({"metric": "ece", "budget": "20m"}, "race"),
     ({"model": "no-one/nothing", "methods": ["lora"]}, "no-one/nothing")],
)  # fmt: skip
def test_a_plan_says_what_compare_would_refuse(
    http: TestClient, more: dict[str, object], said: str
):
    refused = http.post("/desk/plan", json=proposed(**{"data": "demo", **more}))
    assert refused.status_code == 400
    assert said in refused.json()["error"]


def test_without_a_folder_of_studies_there_are_no_new_ones(
    root: Path, tmp_path: Path, service: Service
):
    studies = StudiesOfFolders((root / "one",), RunsOfStudies(tmp_path))
    desk = Desk(Session(1), tmp_path, studies)
    client = TestClient(make_app(service, more=desk_routes(desk, service)))
    client.cookies.set(desk.session.cookie, desk.session.token)
    assert [s["key"] for s in client.get("/desk/studies").json()["studies"]] == ["one"]
    refused = client.post("/desk/begin", json=proposed())
    assert refused.status_code == 403
    assert "tunelab ui FOLDER" in refused.json()["error"]


@pytest.mark.slow
def test_a_study_begins_is_paused_and_goes_on(http: TestClient, root: Path, tmp_path: Path):
    path = write_csv(tmp_path / "r.csv", reviews(200), ["text", "label"])
    name = upload(http, path.read_bytes(), "run.csv")
    begun = http.post("/desk/begin", json=proposed(name="ran", data=name, seeds=12))
    study = {"study": begun.json()["study"]}
    assert study["study"] == "runs/ran"

    def line() -> dict[str, object]:
        return http.get("/desk/study", params=study).json()["line"]  # type: ignore[no-any-return]

    def wait_for(what: Callable[[], object]) -> None:
        until = time.monotonic() + 120
        while not what():
            assert time.monotonic() < until, line()
            time.sleep(0.1)

    wait_for(lambda: list((root / "ran" / "trials").glob("svm*")))
    assert line()["state"] == "running"
    assert http.post("/desk/pause", json=study).status_code == 204
    wait_for(lambda: line()["state"] == "paused")
    paused = line()
    assert 0 < paused["done"] < 12  # type: ignore[operator]
    assert paused["fault"] == ""
    assert http.post("/desk/go-on", json=study).status_code == 204
    wait_for(lambda: line()["state"] == "done")
    assert line()["done"] == 12
    events = [json.loads(x)["event"] for x in LogReader(root / "ran").new_lines()]
    assert (events[0], events[1], events[-1]) == ("run", "plan", "over")
    assert http.post("/desk/load", json=study).json() == {"model": "ran"}
    assert http.post("/desk/try", json={"model": "ran", "text": "good"}).status_code == 200
