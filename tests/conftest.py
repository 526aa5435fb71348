"""What all tests share: caches of their own, no network, and two tiny base models."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tiny import make_tiny

_SCRATCH = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any library reads its environment: nothing of the user's is read or written."""
    scratch = tempfile.mkdtemp(prefix="tunelab-tests-")
    config.stash[_SCRATCH] = scratch
    os.environ["TUNELAB_CACHE"] = f"{scratch}/tunelab"
    os.environ["HF_HOME"] = f"{scratch}/hub"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # xdist's workers have it; what is printed follows it


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_SCRATCH], ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where CI gives seconds since 1970 as TESTS_BEGIN_UNTIL: what would begin later is skipped.

    So an hour that is too short on a slow machine is told, test by test, and is no failure.
    """
    until = os.environ.get("TESTS_BEGIN_UNTIL")
    if until and time.time() > float(until):
        pytest.skip("no time left in CI: run make test-slow")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT in the hub's layout. Not to be changed: copy it first."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny-bert", "bert")


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random DistilBERT in the hub's layout. Not to be changed: copy it first."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny-distilbert", "distilbert")
