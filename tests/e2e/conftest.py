"""What the end-to-end tests share: an empty folder to run in, and data that is made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from commands import Said, run_here
from tiny import reviews, write_csv

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


# Not of the session: while it is open, nothing else of its process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one, or without playwright, the test is skipped."""
    names = ("chromium", "chromium-browser", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("needs Chromium to draw the page")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as p:
        # Without a sandbox, because CI's user is root, for whom Chromium has none.
        opened = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
