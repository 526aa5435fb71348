"""The page in headless Chromium, narrow and wide: each panel as it is walked through, hostile texts
and labels in all of them. Nothing is loaded from elsewhere, and nothing goes wrong.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tunelab
from adapters_made import make_svm
from serving import Running, running_server
from studies import METHODS, make_study, make_texts
from tiny import reviews, write_csv
from tunelab import report
from tunelab.core.study_folder import read_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NASTY = "<img src=x onerror=\"document.title='run'\"></script><b>'&"
WIDTHS = (390, 1280)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers, and a folder with a study that has failed trials and a report."""
    root = tmp_path_factory.mktemp("page")
    make_svm(root / "mood", reviews(60))
    nasty = [(text, {"good": NASTY, "bad": "bad"}[label]) for text, label in reviews(60)]
    make_svm(root / "nasty", nasty)
    methods = [METHODS[0], replace(METHODS[2], label=NASTY)]
    study = make_study(root, methods=methods, label_names=(NASTY, "good"), seeds=2, rows=80,
                       fail=[(NASTY, 1)])  # fmt: skip
    report.write_report(read_study(study), study / "report.html", texts=make_texts(80))
    return root


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Running]:
    folders = (home / "mood", home / "nasty", home / "runs")
    with running_server(home / "log", *folders) as running:
        yield running
        assert running.stop() == 0
        assert running.log.read_text("utf-8") == ""


@pytest.fixture(params=WIDTHS)
def page(browser: Browser, server: Running, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, opened with the printed link; in the end nothing may have gone wrong in it."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    context.set_default_timeout(60_000)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda e: faults.append(str(e)))
    opened.on("console", lambda m: m.type == "error" and faults.append(m.text))
    opened.on("dialog", lambda d: (faults.append(d.message), d.dismiss()))
    opened.on("request", lambda r: r.url.startswith(server.url) or faults.append(r.url))
    opened.goto(server.link)
    yield opened
    assert opened.title() == "tunelab"  # what a text holds is text
    refusals = "the server responded with a status of 400"  # which the browser counts as errors
    assert not [f for f in faults if refusals not in f]
    context.close()


def fits(page: Page) -> bool:
    """Whether nothing stands out of the page to the right."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def rows_of(page: Page, selector: str) -> list[list[str]]:
    return [
        [cell.inner_text() for cell in row.query_selector_all("th, td")]
        for row in page.query_selector_all(f"{selector} tbody tr")
    ]


def test_a_text_is_tried_by_keyboard_alone(page: Page, home: Path):
    text = f"{NASTY} a good film, it's dull"
    page.focus("#text")
    page.keyboard.insert_text(text)
    page.keyboard.press("Tab")  # past both models
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for i in (1, 2):
        page.wait_for_selector(f".card:nth-child({i}) .words")
    for i, name in enumerate(("mood", "nasty")):
        card = f".card:nth-child({i + 1})"
        loaded = tunelab.load(home / name)
        p = dict(zip(loaded.label_names, loaded.predict_proba([text])[0], strict=True))
        ranked = sorted(p.items(), key=lambda kv: -kv[1])
        shown = [row[:2] for row in rows_of(page, f"{card} .scores")]
        assert shown == [[label, f"{100 * v:.1f}%"] for label, v in ranked]
        assert page.inner_text(f"{card} .words .text") == text
        first = rows_of(page, f"{card} .words table")[0]
        without = text.replace(f"{first[0]} ", "").removesuffix(f" {first[0]}")
        assert first[1] == f"{100 * loaded.predict_proba([without])[0].max():.1f}%"
    assert "it'\\''s" in page.inner_text(".command pre")
    assert fits(page)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


def test_a_file_is_labelled_and_saved(page: Page, home: Path, tmp_path: Path):
    texts = [NASTY, *(text for text, _ in reviews(150, 3))]
    file = write_csv(tmp_path / "in.csv", [(t,) for t in texts], ["text"])
    page.click("nav a[href='#file']")
    page.select_option("select", "nasty")
    page.set_input_files("input[type=file]", file)
    with page.expect_download() as saved:
        page.click("a.button")
    out = tmp_path / "out.csv"
    saved.value.save_as(out)
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["text"] for r in rows] == texts
    assert [r["predicted_label"] for r in rows] == tunelab.load(home / "nasty").predict(texts)
    assert page.inner_text("[role=status]") == "151 of 151 rows"
    assert fits(page)
    page.set_input_files("input[type=file]", write_csv(tmp_path / "b.csv", [(1, 2)], [NASTY, "b"]))
    assert "b.csv" in page.inner_text("[role=alert]")


def test_a_study_is_shown_with_its_failures_and_its_report(page: Page, server: Running):
    page.click("nav a[href='#studies']")
    page.click("a.study:has-text('study')")
    page.wait_for_selector("iframe")
    assert f"{NASTY} seed 1 failed" in page.inner_text("[role=alert]")
    names = {row[0] for row in rows_of(page, "table")}
    assert {f"{NASTY} seed 0", "svm-tfidf seed 1"} <= names
    assert fits(page)
    frame: Any = page.query_selector("iframe").content_frame()  # type: ignore[union-attr]
    frame.wait_for_selector("h1")
    # It stands in an origin of its own, which has no cookie of this one.
    assert frame.evaluate("origin") == "null"
    assert frame.evaluate("try { document.cookie } catch { 'none' }") == "none"


def test_a_study_is_planned_begun_and_outlives_the_page(page: Page, tmp_path: Path):
    """On the wide screen it is paused and gone on with too."""
    width = page.viewport_size["width"]  # type: ignore[index]
    rows = [*reviews(160), (f"good {NASTY} film", "good"), reviews(1)[0]]
    file = write_csv(tmp_path / "new.csv", rows, ["text", "label"])
    page.click("nav a[href='#new']")
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector(".findings")
    assert page.input_value("form [pattern]") == "new"
    page.fill("form [pattern]", f"ran-{width}")
    seeds = {390: 6, 1280: 12}[width]
    page.fill("form [type=number]", str(seeds))
    for method in ("svm", "full", "lora"):
        page.locator("label.check", has=page.locator(f"b:text-is('{method}')")).click()
    page.select_option("select[name=metric]", label="macro F1")
    page.fill("input[name=base]", "/etc")
    page.click("button:text-is('Plan')")
    page.wait_for_selector("text=there is no such base")
    page.fill("input[name=base]", "minilm")
    assert page.is_disabled("button:text-is('Start')")  # nothing starts that was not planned
    page.click("button:text-is('Plan')")
    page.wait_for_selector(".tiles")
    command = page.inner_text(".command pre")
    assert f"--model=minilm --methods=svm-tfidf --seeds={seeds} --metric=f1_macro" in command
    assert fits(page)
    page.click("button:text-is('Start')")
    page.wait_for_selector(".state.running")
    if width == 1280:
        page.click("button:text-is('Pause')")
        page.click("button:text-is('Continue')")
        page.wait_for_selector(".state.running")
    address = page.url
    page.goto("about:blank")  # the browser is closed, and opened again
    page.goto(address)
    page.wait_for_selector(".state.done")
    page.wait_for_selector("iframe")
    assert f"{seeds} of {seeds} trials done" in page.inner_text("summary")
    page.click("button:text-is('Load its best model')")
    page.wait_for_selector("text=Loaded")
    page.click("nav a[href='#try']")
    page.wait_for_selector(f"label.chip:has-text('ran-{width}')")


def test_the_page_asks_for_the_token(browser: Browser, server: Running):
    page = browser.new_page()
    page.goto(f"{server.url}/#studies")
    page.fill("#token", "wrong")
    page.click("button:text-is('Open')")
    page.wait_for_selector("text=not the token")
    assert not page.query_selector("a.study")
    page.fill("#token", server.link)
    page.click("button:text-is('Open')")
    page.wait_for_selector("a.study")
    page.close()
