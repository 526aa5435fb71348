"""The page that a server shows at /, in a browser: a text, its probabilities, the same by curl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunelab
from adapters_made import make_svm
from serving import running_server
from tiny import reviews

TEXT = "<img src=x onerror=\"document.title='run'\"> it's good"


pytestmark = pytest.mark.xdist_group("browser")


@pytest.mark.slow
def test_the_page_tries_a_text_with_a_key(browser: Any, tmp_path: Path):
    """Who has no token may try a text where the server answers them: here with its key."""
    svm = make_svm(tmp_path / "mood", reviews(60))
    with running_server(tmp_path / "log", svm, env={"TUNELAB_API_KEYS": "secret"}) as server:
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(server.url)
        page.fill("#token", "secret")
        page.click("form button")
        page.fill("#text", TEXT)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".scores tbody tr")
        rows = [r.inner_text().split() for r in page.query_selector_all(".scores tbody tr")]
        loaded = tunelab.load(svm)
        p = dict(zip(loaded.label_names, loaded.predict_proba([TEXT])[0], strict=True))
        ranked = sorted(p.items(), key=lambda kv: -kv[1])
        assert [r[:2] for r in rows] == [[label, f"{100 * v:.1f}%"] for label, v in ranked]
        curl = page.inner_text(".command pre")
        assert "it'\\''s good" in curl
        assert "Bearer KEY" in curl
        assert "secret" not in curl
        assert page.title() == "tunelab"  # what a text holds is text
        assert not errors
        page.close()
