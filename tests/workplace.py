"""A folder with all that the README and the guide speak of, and their commands made small."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import run_here
from tiny import make_tiny, reviews, write_csv
from tunelab.kernels import build
from tunelab.methods import METHODS

FENCED = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What `make demo` leaves, on few rows; the guide goes on from there.
DEMO = ["compare", "--data", "demo", "--methods", "svm-tfidf,lora", "--output-dir", "runs/demo"]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language ("" for none)."""
    return [body for name, body in FENCED.findall(text) if name == language]


def commands(page: str) -> list[list[str]]:
    """The arguments of every command of a page, in order, but of those that run until Ctrl-C."""
    lines = [line for block in blocks(page, "") for line in block.splitlines()]
    found = [shlex.split(x, comments=True)[1:] for x in lines if x.startswith("tunelab ")]
    # Of so few rows no label is in doubt, which --review refuses, and so none is put right;
    # test_browser.py has some.
    left_out = {"--watch", "--review", "--corrections"}
    return [a for a in found if a[0] not in {"serve", "ui"} and not left_out.intersection(a)]


def furnish(folder: Path) -> None:
    """Put models and data below a folder. What lies there wins over the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny(folder / "tiny", "bert")
    make_tiny(folder / "distilbert-base-uncased", "distilbert")
    write_csv(folder / "reviews.csv", reviews(160), ["text", "label"])
    write_csv(folder / "texts.csv", [[t] for t, _ in reviews(5)], ["text"])
    write_csv(folder / "unlabelled.csv", [[t] for t, _ in reviews(40, 5)], ["text"])
    stars = [[text, i % 5 + 1] for i, (text, _) in enumerate(reviews(100))]
    write_csv(folder / "stars.csv", stars, ["text", "stars"])
    _write_tickets(folder)
    (folder / "rotten_tomatoes").mkdir()
    for i, part in enumerate(("train", "validation", "test")):
        write_csv(folder / "rotten_tomatoes" / f"{part}.csv", reviews(60, i), ["text", "label"])


def bring_kernels(folder: Path) -> None:
    """Put compiled kernels into a new cache folder: what a machine has after its first training."""
    built, _ = build.library()
    if built is None:
        return  # as on a machine without a compiler
    (folder / "machine").mkdir(parents=True, mode=0o700)
    shutil.copy2(built, folder / "machine")


def _write_tickets(folder: Path) -> None:
    """The same texts with several labels each: as lists, and as a column of 0 and 1 a label."""
    names = ("late", "rude", "pricey")
    rows = [(text, [i % 2, i % 3 // 2, i % 5 // 4]) for i, (text, _) in enumerate(reviews(120))]
    write_csv(folder / "tickets.csv", [[t, *flags] for t, flags in rows], ["text", *names])
    sets = [[n for n, yes in zip(names, flags, strict=True) if yes] for _, flags in rows]
    lines = [json.dumps({"text": t, "labels": s}) for (t, _), s in zip(rows, sets, strict=True)]
    (folder / "tickets.jsonl").write_text("\n".join(lines), encoding="utf-8")


@contextlib.contextmanager
def furnished(folder: Path) -> Iterator[None]:
    """Work in a furnished folder, without a network and without what the user has cached."""
    furnish(folder)
    bring_kernels(folder / ".cache")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / ".hub"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TUNELAB_CACHE", str(folder / ".cache"))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
            shutil.rmtree(folder)


def small(args: list[str]) -> list[str]:
    """The same command on few rows with one seed; without a model of its own, on the tiny one."""
    if args[:2] == ["inspect", "data"] and "--model" not in args:
        return [*args, "--model", "tiny"]
    out = list(args)
    if args[0] == "extend" and "--until" in args:
        return [*out, "--max-seeds", "3"]
    if args[0] == "extend":
        out[out.index("--seeds") + 1] = "2"
    if args[0] not in {"compare", "train"}:
        return out

    def ask(flag: str, value: str, *, even_if_given: bool = False) -> None:
        if flag not in out:
            out.extend([flag, value])
        elif even_if_given:
            out[out.index(flag) + 1] = value

    ask("--subset", "20")
    ask("--model", "tiny")
    if out[0] == "compare":
        ask("--seeds", "1", even_if_given=True)
        ask("--tuning", "off")
    flag = "--method" if out[0] == "train" else "--methods"
    names = out[out.index(flag) + 1].split(",") if flag in out else ["lora"]
    known = [METHODS[n].settings.model_fields for n in names if n in METHODS]
    for setting, value in (("max_length", "32"), ("num_train_epochs", "1")):
        if any(setting in fields for fields in known):
            ask("--" + setting.replace("_", "-"), value)
    return out


def answer(args: list[str]) -> list[str]:
    """What a command says, standard output before standard error, as the guide quotes it."""
    said = run_here(*small(args))
    here = f"{Path.cwd()}/"
    return [x.replace(here, "").rstrip() for x in [*said.out.splitlines(), *said.err.splitlines()]]
