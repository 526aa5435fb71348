"""`export --to docker`: its steps, one by one, where no docker is at hand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from importlib import metadata
from pathlib import Path

import pytest

import tunelab
from commands import run_here
from tiny import reviews
from tunelab import exporting, exports
from tunelab.core.errors import ArtifactError
from tunelab.exporting import docker

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docker")
    rows = "".join(f'"{t}",{n}\n' for t, n in reviews(120))
    (root / "rows.csv").write_text("text,label\n" + rows)
    tunelab.fine_tune(root / "rows.csv", "svm-tfidf", output_dir=root / "svm")
    tunelab.export(root / "svm", "onnx", root / "onnx")
    return root / "onnx"


def test_the_folder_has_all_that_its_dockerfile_copies_and_every_version(
    onnx: Path, tmp_path: Path
):
    said = run_here("export", onnx, "--to", "docker", "--output-dir", tmp_path / "Mood 1")
    assert said.code == 0, said.err
    assert "docker build" in said.out
    folder = tmp_path / "Mood 1"
    lines = (folder / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            assert (folder / line.split()[1]).exists()
    assert 'CMD ["python", "-m", "tunelab", "serve", "mood-1=model"' in "\n".join(lines)
    assert not list(folder.rglob("__pycache__"))
    locked = (folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in locked if not line.startswith("--")]
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in pins)
    assert f"onnxruntime=={metadata.version('onnxruntime')}" in pins
    assert {"uvicorn", "starlette", "h11"} <= {line.partition("==")[0] for line in pins}
    assert not {"pytest", "openvino", "datasets"} & {line.partition("==")[0] for line in pins}
    texts = ["a good film"]
    assert tunelab.load(folder / "model").predict_proba(texts).tolist() == (
        tunelab.load(onnx).predict_proba(texts).tolist()
    )


def test_what_is_no_export_is_exported_first_or_refused(onnx: Path, tmp_path: Path):
    made = exports.export_to_docker(onnx.parent / "svm", tmp_path / "out")
    assert made.exported is not None
    assert made.model.manifest["kind"] == "onnx"
    assert made.exported.agreement.changed == ()
    with pytest.raises(ArtifactError, match="not empty"):
        exports.export_to_docker(onnx, tmp_path / "out")


def test_versions_that_are_not_known_are_named(onnx: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(docker, "_SERVER", ("click", "no-such-package"))
    with pytest.raises(ArtifactError, match="needs no-such-package, which this environment lacks"):
        exporting.write_docker_folder(onnx, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_its_steps_one_by_one_serve_the_model(onnx: Path, tmp_path: Path):
    """In an environment that has the locked packages, as they lie here, and nothing else."""
    exports.export_to_docker(onnx, tmp_path / "image")
    root, python = tmp_path / "srv", tmp_path / "venv" / "bin" / "python"
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    settings: dict[str, str] = {}
    done = []
    for line in (tmp_path / "image" / "Dockerfile").read_text().splitlines():
        step, _, rest = line.partition(" ")
        if step == "WORKDIR":
            root.mkdir()
        elif step == "COPY":
            source, target = (tmp_path / "image" / rest.split()[0], root / rest.split()[1])
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        elif step == "RUN" and "pip install" in rest:
            have_packages(root / "requirements.txt", tmp_path / "venv")
            install = [w for w in shlex.split(rest)[2:] if w != "--no-cache-dir"]
            said = pip(python, ["install", "--no-index", *install], root)
            assert "Requirement already satisfied" in said
        elif step == "ENV":
            settings |= dict(part.split("=") for part in rest.split())
        elif step == "CMD":
            command = json.loads(rest)
        done.append(step)
    assert {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "HEALTHCHECK", "CMD"} <= set(done)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command[0], command[-1] = str(python), port
    command[command.index("--host") + 1] = "127.0.0.1"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | settings
    environment["PYTHONPATH"] = str(root)
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            answer = asked(f"http://127.0.0.1:{port}/predict", server, tmp_path / "log")
        finally:
            server.terminate()
    loaded = tunelab.load(onnx)
    expected = dict(zip(loaded.label_names, loaded.predict_proba(["a good film"])[0], strict=True))
    assert {x["label"]: x["score"] for x in answer} == pytest.approx(expected, abs=1e-6)


def have_packages(requirements: Path, where: Path) -> None:
    """Link what is locked, and nothing else, into an environment: no test reaches an index."""
    site = Path(sysconfig.get_path("purelib", vars={"base": str(where), "platbase": str(where)}))
    for line in requirements.read_text().splitlines():
        if line.startswith("--"):
            continue
        package = metadata.distribution(line.partition("==")[0])
        tops = {f.parts[0] for f in package.files or () if f.parts[0] not in {"..", "__pycache__"}}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))


def pip(python: Path, words: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(url: str, server: subprocess.Popen[bytes], log: Path) -> list[dict[str, object]]:
    body = json.dumps({"inputs": "a good film"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  our own
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                return json.load(answer)
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
