"""Families: one row each, which no other module repeats, and sizes that are the model's own."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

import tunelab
from commands import run_here
from families import FAMILY_NAMES, make_family
from tunelab.cli import terminal
from tunelab.models import anatomy, bases, pretrained
from tunelab.models.families import FAMILIES, sizes_of
from tunelab.models.family import Sizes

SOURCES = Path(tunelab.__file__).parent
ROWS = SOURCES / "models" / "families.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("rows")
    return {f: make_family(root / f, f) for f in FAMILY_NAMES}


# --- named once -----------------------------------------------------------------------------


def _class_prefix(model_type: str) -> str:
    """What the names of a type's classes in transformers begin with: XLMRoberta, GPT2, ..."""
    return type(AutoConfig.for_model(model_type)).__name__.removesuffix("Config")


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [n.body[0] for n in ast.walk(tree) if isinstance(n, documented) and n.body]
    return {e.value for e in first if isinstance(e, ast.Expr)}


def _said(source: str) -> Iterator[tuple[int, str]]:
    """Every string and name of a module but its docstrings and comments, each with its line."""
    tree = ast.parse(source)
    prose = _docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and node not in prose:
                yield line, node.value
            continue
        for _, value in ast.iter_fields(node):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    yield line, name


@functools.cache
def _words() -> frozenset[str]:
    """Every name that a family has in code."""
    spelled = ((n, n.replace("-", "_"), _class_prefix(n)) for n in FAMILIES)
    return frozenset(word.lower() for words in spelled for word in words)


def _named(source: str) -> list[str]:
    """Where a module names an architecture."""
    return [
        f"line {line}: {said!r}"
        for line, said in _said(source)
        if any(word in said.lower() for word in _words())
    ]


def test_no_module_but_the_rows_names_an_architecture() -> None:
    found = {
        str(path.relative_to(SOURCES)): named
        for path in sorted(SOURCES.rglob("*.py"))
        if path != ROWS and (named := _named(path.read_text(encoding="utf-8")))
    }
    assert not found, "what is particular to a family belongs to its row in families.py"


@pytest.mark.parametrize(
    "line",
    [
        'kind = "xlm-roberta"',
        'hint = f"such as gpt2, {kind}"',
        "layer = BertLayer",
        "from transformers import LlamaModel",
        "import transformers.models.deberta_v2",
        "def _qwen3_head(): ...",
        "row(modernbert=1)",
        "def f(electra): ...",
        "m.distilbert.encoder",
    ],
)
def test_a_name_is_found_wherever_it_stands(line: str) -> None:
    assert _named(line)
    assert not _named(f"'''Of {line}'''\n# {line}\n")


def test_rows_are_of_all_that_are_tried() -> None:
    assert set(FAMILIES) == set(FAMILY_NAMES)


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_sizes_are_the_models_own(family: str, folders: dict[str, Path]) -> None:
    base = bases.resolve(str(folders[family]))
    model: Any = pretrained.load_encoder(base)
    table = model.get_input_embeddings().weight
    sizes = base.sizes
    assert sizes.layers == anatomy.layers_in(model) == 2
    assert sizes.width == anatomy.width_of(model) == 32
    assert sizes.heads == 2
    assert (sizes.vocabulary, sizes.embedding) == tuple(table.shape)
    assert sizes.own_layers == (1 if family == "albert" else 2)
    # RoBERTa's positions begin after the pad id, which is 0 here.
    longest = 65 if FAMILIES[family].anatomy.after_pad else 64
    assert sizes.longest == base.max_positions == longest
    down = next(m for n, m in model.named_modules() if re.fullmatch(FAMILIES[family].down, n))
    assert sizes.intermediate == (down.nx if FAMILIES[family].conv1d else down.in_features)


def test_a_config_that_says_nothing_has_no_sizes() -> None:
    known = sizes_of({"model_type": "bert"})
    assert {getattr(known, f.name) for f in fields(Sizes)} == {None}


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layers", "n_layer"])
def test_an_unknown_type_is_asked_under_every_name(key: str) -> None:
    sizes = sizes_of({"model_type": "mpnet", key: 3, "n_positions": 512})
    assert (sizes.layers, sizes.own_layers, sizes.longest) == (3, 3, 512)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_inspect_model_says_all_of_every_family(
    family: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_here("inspect", "model", folders[family], "--json")
    assert said.code == 0, said.err
    assert "null" not in said.out
    facts = json.loads(said.out)
    assert (facts["layers"], facts["hidden_size"]) == (2, 32)
    assert facts["max_positions"] == (65 if FAMILIES[family].anatomy.after_pad else 64)
    terminal.model_card(facts)
    shown = capsys.readouterr().out
    assert "None" not in shown
    lines = {" ".join(line.split()) for line in shown.splitlines()}
    assert {"Layers x width 2 x 32", f"Longest input {facts['max_positions']} tokens"} <= lines
    assert {"embeddings", "layers", "head"} <= set(facts["parameters"])
    assert set(facts["head_modules"]) >= set(FAMILIES[family].head)
