"""What holds for the project as a whole: names, imports, doors, pins, paths, version."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tunelab
from tunelab.core import extras

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch", "transformers", "peft", "accelerate", "datasets", "pandas", "pyarrow", "sklearn",
    "scipy", "altair", "vl_convert", "jinja2",
}  # fmt: skip
PUBLIC = {
    "Study", "TextClassifier", "TunelabError", "__version__", "compare", "evaluate", "export",
    "familiarity", "fine_tune", "load", "load_base", "load_data", "serve", "suggest",
}  # fmt: skip


def _python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


# --- names ----------------------------------------------------------------------------------


def test_public_names_are_these_and_all_are_there():
    assert set(tunelab.__all__) == PUBLIC
    assert all(getattr(tunelab, name) is not None for name in PUBLIC)


def test_adapters_offers_what_it_has_offered():
    from tunelab import adapters

    assert set(adapters.__all__) == {
        "AdapterSet", "COMBINATIONS", "Change", "Check", "Made", "combine", "find_artifacts",
        "merge", "sample_texts", "show", "verify",
    }  # fmt: skip
    assert all(getattr(adapters, name) is not None for name in adapters.__all__)


def test_version_agrees_everywhere():
    assert importlib.metadata.version("tunelab") == tunelab.__version__
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(tunelab.__version__)}\b", text)


# --- extras ---------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["serve", "quant", "tune", "export", "openvino"])
def test_what_an_error_says_to_install_is_the_extra(extra: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"][extra]
    line = extras.install_line(extra)
    assert shlex.split(line) == ["pip", "install", *declared]
    first = Requirement(declared[0]).name
    assert shlex.split(extras.install_line(extra, [first])) == ["pip", "install", declared[0]]


def test_no_line_installs_tunelab_itself_from_an_index():
    said = [
        (path.name, line)
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"install.*\btunelab\[|'tunelab\[", line)
    ]
    assert not said


# --- imports --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["tunelab", "tunelab.cli"])
def test_import_is_light(module: str):
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = _python(code)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY
    assert "tunelab" in loaded


LINT = (
    "import sys; sys.argv = ['lint-imports', '--no-logo', '--no-cache'];"
    "sys.path.insert(0, 'src');"
    "from importlinter.cli import lint_imports_command; lint_imports_command()"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources and their contracts, to be broken."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.tsv")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_doors_open_one_way(copy: Path):
    done = _python(LINT, copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("stats/metrics.py", "import torch"),
        ("data/loading.py", "def f():\n    from tunelab.models import batches"),
        ("core/values.py", "import tunelab.data"),
        ("models/packed.py", "from tunelab.methods import METHODS"),
        ("report/page.py", "from tunelab.study import trial"),
        ("study/trial.py", "from tunelab.serving import adapter_set"),
        ("api.py", "from tunelab.stats.intervals import mean"),
        ("newcomer.py", ""),
    ],
)
def test_a_door_that_opens_the_wrong_way_is_refused(copy: Path, file: str, line: str):
    with (copy / "src" / "tunelab" / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    done = _python(LINT, copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_every_file_is_named_by_its_door_or_kept_behind_it():
    """A newcomer sees which files of a package are for others: its docstring names them."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    sections = (s for n, s in contracts.items() if n.startswith("importlinter:contract:private-"))
    private = {name for s in sections for name in s["protected_modules"].split()}
    source = ROOT / "src" / "tunelab"
    seen, unnamed = 0, []
    for door in source.rglob("__init__.py"):
        package = ".".join(["tunelab", *door.parent.relative_to(source).parts])
        inside = any(f"{package}.".startswith(f"{name}.") for name in private)
        if inside or package in {"tunelab", "tunelab.cli"}:
            continue
        said = set(re.findall(r"\w+", ast.get_docstring(ast.parse(door.read_text("utf-8"))) or ""))
        for file in [*door.parent.glob("*.py"), *door.parent.glob("*/__init__.py")]:
            name = file.stem if file.parent == door.parent else file.parent.name
            if name != "__init__":
                seen += 1
                if f"{package}.{name}" not in private and name not in said:
                    unnamed.append(f"{package}.{name}")
    assert seen > 100
    assert not unnamed


# --- types ----------------------------------------------------------------------------------

HOUSE = runpy.run_path(str(ROOT / "benchmarks" / "house.py"))
# Where text that was parsed becomes a value: nowhere else is a mapping's value of any type.
PARSED = {
    "analysis.corrected.before_from_json",
    "analysis.explanations.explained_from_json",
    "analysis.curves.curves_from_json",
    "core.details.Details.from_json",
    "core.details.Provenance.from_json",
    "core.details._known",
    "core.details._scoring",
    "core.details._transfer",
    "core.events.event_from_json",
    "core.forms.exports_from_json",
    "core.text_lengths.text_lengths_from_json",
    "core.trial_files.spec_from_json",
    "data.behaviour.suite_from_json",
    "data.gate.values.gate_from_json",
    "models.linear._ngram_weights",
    "stats.choosing._tuned_method",
    "stats.looks.looks_from_json",
    "study.spreads._is_sound",
    "stats.choosing.tuning_from_json",
    "stats.racing.race_from_json",
}


def _trees(files: dict[str, Path]) -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}


def test_no_mapping_holds_any_value_but_where_text_is_parsed():
    trees = _trees(HOUSE["source_files"](ROOT))
    assert len(trees) > 100
    assert not HOUSE["aliases_of_any"](trees)
    assert {where for where, _ in HOUSE["loose_mappings"](trees)} <= PARSED


@pytest.mark.parametrize(
    "line",
    [
        "def f(x: dict[str, Any]) -> None: ...",
        "def f() -> Mapping[str, Any] | None: ...",
        "def f(x: list[typing.Mapping[str, typing.Any]]) -> None: ...",
        "def f(x: 'dict[str, Any]') -> None: ...",
        "class F:\n    x: dict[str, int | Any]",
        "class F(Mapping[str, Any]): ...",
        "def f(x: Loose) -> None: ...",
        "def f(x: Looser) -> None: ...",
        "def f(x: dict[str, Free]) -> None: ...",
        "def f(x: Quoted) -> None: ...",
    ],
)
def test_a_mapping_of_any_value_is_seen_under_any_name(line: str):
    aliases = (
        "Free = Any\nLoose = Mapping[str, Free]\nLooser: TypeAlias = Loose\n"
        "Quoted: TypeAlias = 'dict[str, Any]'\n"
    )
    trees = {"tunelab.a": ast.parse(aliases), "tunelab.b": ast.parse(line)}
    assert HOUSE["aliases_of_any"](trees) == {"Free", "Loose", "Looser", "Quoted"}
    inside = [where for where, _ in HOUSE["loose_mappings"](trees) if where.startswith("b")]
    assert len(inside) == 1
    assert inside[0] in {"b.f", "b.F"}


def test_what_is_no_mapping_of_any_value_is_let_be():
    text = (
        "def f(x: dict[str, object], y: Mapping[str, int], z: Any, w: dict[int, Any]) -> None: ..."
    )
    assert not HOUSE["loose_mappings"]({"tunelab.a": ast.parse(text)})


# --- one name, one thing --------------------------------------------------------------------

# A user's door, and the room it leads to.
DOORS = {"load", "compare", "evaluate", "suggest", "TextClassifier"}


def test_no_two_modules_define_the_same_name():
    trees = _trees(HOUSE["source_files"](ROOT))
    assert set(HOUSE["doubled_names"](trees)) == DOORS


@pytest.mark.parametrize(
    "line",
    ["def taken(): ...", "class taken: ...", "taken = 2", "taken: int = 2", "other, taken = 1, 2"],
)
def test_a_name_that_two_modules_define_is_seen(line: str):
    trees = {"tunelab.a": ast.parse("taken, free = 1, 2"), "tunelab.b": ast.parse(line)}
    assert HOUSE["doubled_names"](trees) == {"taken": ["tunelab.a", "tunelab.b"]}


def test_no_value_is_called_found():
    """It would say that something was looked for, not what it is."""
    trees = _trees(HOUSE["source_files"](ROOT))
    assert HOUSE["count_given"](trees, "found") == 0


# --- pins -----------------------------------------------------------------------------------


def _lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins), pins
    return {
        canonicalize_name(name): version for name, _, version in (p.partition("==") for p in pins)
    }


def test_lock_has_an_exact_version_of_everything_asked_for():
    lock = _lock()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, asked):
        version = lock.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: not locked; run make lock"
        assert requirement.specifier.contains(version), f"{requirement}: locked {version}"


def test_lock_pins_the_tested_torch_of_any_build():
    lock = _lock()
    assert lock["torch"] == "2.13.0"
    assert not [name for name in lock if name.startswith(("nvidia-", "cuda-")) or name == "triton"]


# --- files and configs ----------------------------------------------------------------------


def test_no_file_names_a_path_of_a_machine():
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert "pyproject.toml" in names
    # Put together here, so that this file does not name them.
    paths = ["/" + "work/", "/" + "root/", f"{ROOT}/"]
    named = [
        f"{name}: {path}"
        for name in names
        if (ROOT / name).is_file()
        for path in paths
        if path.encode() in (ROOT / name).read_bytes()
    ]
    assert not named


CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_resolves_to_a_study(path: Path):
    from tunelab.study import resolve

    spec = resolve.resolve_study(path, {})
    assert spec.methods
    assert spec.seeds
    assert spec.output_dir == Path("runs") / path.stem
    assert not any("is called" in n for n in spec.notes)  # ours use no alias of another tool
