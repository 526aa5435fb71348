"""What the end-to-end tests share: an empty folder to run in, and data that is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Said, run_here
from tiny import reviews, write_csv


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """The command line, run in this process from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_here


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 reviews, half good, half bad. Not to be changed."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    return write_csv(path, reviews(160), ["text", "label"])
