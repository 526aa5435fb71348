"""Python code that a model brings: refused by name, run only with an explicit flag, recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import tunelab
from commands import run_here
from tiny import reviews, write_csv
from tunelab.models import bases

CODE = """\
from transformers import BertConfig, BertForSequenceClassification, BertModel

open({mark!r}, "a").close()


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertModel):
    config_class = OwnConfig


class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnModel",
    "AutoModelForSequenceClassification": "own.OwnClassifier",
}
NAMED = ["--target-modules", "[query,value]", "--modules-to-save", "[classifier]"]
SHORT = ["--max-length", 32, "--num-train-epochs", 1]


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Is there once the model's code has run."""
    return tmp_path / "ran"


@pytest.fixture
def own(tiny_bert: Path, tmp_path: Path, ran: Path) -> Path:
    """The tiny BERT as a type that only the code beside it knows, in the hub's layout."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": CLASSES}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(mark=str(ran)))
    write_csv(tmp_path / "r.csv", reviews(60), ["text", "label"])
    return folder


@pytest.mark.parametrize("method", ["svm", "full", "lora"])
def test_unasked_it_is_refused_by_name_and_not_run(
    own: Path, ran: Path, tmp_path: Path, method: str
) -> None:
    said = run_here("compare", tmp_path / "r.csv", "--model", own, "--methods", method,
                    "--max-length", 32, "--output-dir", tmp_path / "out")  # fmt: skip
    assert said.code == 2
    (line,) = said.faults
    assert str(own) in line
    assert "--trust-remote-code" in line
    assert not ran.exists()
    assert not (tmp_path / "out").exists()


def test_a_study_file_alone_allows_nothing(own: Path, ran: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"data: {tmp_path / 'r.csv'}\nmodel: {own}\ntrust_remote_code: true\nseeds: 1\n"
        f"methods: [{{name: svm, max_length: 32}}]\noutput_dir: {tmp_path / 'out'}\n"
    )
    for more in ((), ("--dry-run",)):
        said = run_here("compare", study, *more)
        assert said.code == 2
        assert "--trust-remote-code" in said.faults[-1]
    with pytest.raises(tunelab.TunelabError, match="trust-remote-code"):
        tunelab.compare(config_file=study)
    assert not ran.exists()
    assert run_here("compare", study, "--dry-run", "--trust-remote-code").code == 0


def test_allowed_it_runs_and_is_recorded(own: Path, ran: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run_here("train", tmp_path / "r.csv", "--model", own, "--method", "lora", *NAMED,
                    *SHORT, "--trust-remote-code", "--output-dir", out)  # fmt: skip
    assert said.code == 0, said.err
    assert ran.exists()
    digest = hashlib.sha256((own / "own.py").read_bytes()).hexdigest()
    manifest = json.loads((out / "tunelab.json").read_text())
    assert manifest["base"]["code_sha256"] == digest
    result = json.loads((out / "trial" / "result.json").read_text())
    assert result["provenance"]["base"]["code_sha256"] == digest

    # An artifact that needs it asks again: whoever loads it is not who trained it.
    refused = run_here("predict", out, "a good film")
    assert refused.code == 2
    assert "--trust-remote-code" in refused.faults[0]
    with pytest.raises(tunelab.TunelabError, match="trust_remote_code"):
        tunelab.load(out)
    labels = tunelab.load(out, trust_remote_code=True).predict(["a good film"])
    again = run_here("predict", out, "a good film", "--trust-remote-code")
    assert again.code == 0, again.err
    assert labels[0] in again.out

    (own / "own.py").write_text((own / "own.py").read_text() + "\n# changed\n")
    with pytest.raises(tunelab.TunelabError, match="not the one it was trained with"):
        tunelab.load(out, trust_remote_code=True)


@pytest.mark.slow
def test_every_verb_that_loads_a_classifier_asks_the_same(
    own: Path, ran: Path, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for seed, out in enumerate((a, b)):
        said = run_here("train", tmp_path / "r.csv", "--model", own, "--method", "lora", *NAMED,
                        *SHORT, "--trust-remote-code", "--seed", seed,
                        "--output-dir", out)  # fmt: skip
        assert said.code == 0, said.err
    ran.unlink()
    for verb in (
        ("adapters", "verify", a),
        ("adapters", "merge", a, "--output-dir", tmp_path / "merged"),
        ("adapters", "combine", a, b, "--output-dir", tmp_path / "both"),
        ("evaluate", a, b, "--data", tmp_path / "r.csv"),
        ("behaviour", a),
    ):
        refused = run_here(*verb)
        assert refused.code == 2, verb
        assert "--trust-remote-code" in refused.out + refused.err, verb
        assert not ran.exists(), verb
        allowed = run_here(*verb, "--trust-remote-code")
        assert allowed.code == 0, (verb, allowed.err)
        ran.unlink(missing_ok=True)
    for made in (tmp_path / "merged", tmp_path / "both"):
        assert json.loads((made / "tunelab.json").read_text())["base"]["code_sha256"]
        assert run_here("adapters", "verify", made).code == 2
        assert run_here("adapters", "verify", made, "--trust-remote-code").code == 0


def test_a_whole_model_keeps_its_code_and_asks_too(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run_here("train", tmp_path / "r.csv", "--model", own, "--method", "full", *SHORT,
                    "--trust-remote-code", "--output-dir", out)  # fmt: skip
    assert said.code == 0, said.err
    assert "own.py" in json.loads((out / "tunelab.json").read_text())["files"]
    with pytest.raises(tunelab.TunelabError, match="--trust-remote-code"):
        tunelab.load(out)
    assert tunelab.load(out, trust_remote_code=True).predict(["a good film"])[0] in {"good", "bad"}


def test_code_from_another_repository_is_refused(own: Path) -> None:
    config = json.loads((own / "config.json").read_text())
    config["auto_map"] = {k: f"some-owner/some-code--{v}" for k, v in CLASSES.items()}
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(tunelab.TunelabError, match="lies in another repository"):
        bases.resolve(str(own), trust_remote_code=True)


def test_an_ordinary_model_has_no_code_with_the_flag_either(tiny_bert: Path) -> None:
    assert bases.resolve(str(tiny_bert), trust_remote_code=True).ref.code_sha256 is None
