"""The report in headless Chromium: drawn, quiet, offline, turned by mouse and by keyboard.

Needs a Chromium (Debian's package, as in .ci/run) and playwright; skipped, with the reason,
where there is none.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from studies import GRID, MANY, METHODS, NEGATIVE_TEXT, make_study, make_texts
from tunelab import report
from tunelab.analysis.doubtful import DoubtedRow, RowsInDoubt
from tunelab.core.study_folder import read_study
from tunelab.data.corrections import read_corrections, text_digest
from tunelab.report.charts import PLOTS
from tunelab.report.review import render_review

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NASTY = '</script><script>alert(1)</script><!-- "quoted" \''
# Charts of a study that has no parts of its own: no tuning, no sizes, no other data.
UNUSUAL = {"sensitivity", "tuning", "learning", "transfer", "slices", "behaviour"}
USUAL = [p for p in PLOTS if p not in UNUSUAL]
DRAWN = "html[data-drawn]"

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small study, with names and texts that would break a careless page."""
    folder = tmp_path_factory.mktemp("few")
    methods = [*METHODS[:3], replace(METHODS[3], label=NASTY)]
    study = make_study(folder, methods=methods, label_names=(NASTY, "good"), seeds=2, rows=120)
    texts = {i: f"{text} {NEGATIVE_TEXT}" for i, text in make_texts(120).items()}
    record = read_study(study)
    why = {"adapter_parameters": "an SVM has no adapter: its hyperplanes are counted as the head"}
    none = tuple(
        replace(r, cost=replace(r.cost, adapter_parameters=None), reasons={**r.reasons, **why})
        if r.spec.method.name == METHODS[0].name else r
        for r in record.results
    )  # fmt: skip
    record = replace(record, results=none)
    return report.write_report(record, folder / "report.html", texts=texts)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    study = make_study(folder, methods=MANY, seeds=2, rows=200)
    return report.write_report(read_study(study), folder / "report.html", texts=make_texts(200))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    study = make_study(folder, methods=GRID, seeds=2, rows=200)
    return report.write_report(read_study(study), folder / "report.html", texts=make_texts(200))


class Watched:
    """A page, and everything that it said or asked for that a finished report must not."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", lambda m: m.type == "error" and self.faults.append(m.text))
        page.on("pageerror", lambda e: self.faults.append(str(e)))
        page.on("dialog", lambda d: (self.faults.append(f"dialog: {d.message}"), d.dismiss()))
        page.on("request", self._asked)
        self._own = ""

    def _asked(self, request: Any) -> None:
        if request.url != self._own and not request.url.startswith(("data:", "blob:")):
            self.faults.append(f"request: {request.url}")

    def open(self, path: Path, drawn: str) -> Page:
        self._own = path.as_uri()
        self.page.goto(self._own)
        self.page.wait_for_selector(drawn, state="attached", timeout=60_000)
        return self.page


@pytest.fixture
def opened(browser: Browser) -> Iterator[Any]:
    """Open a report at a width; afterwards, nothing may have gone wrong in any page."""
    watched = []

    def open_(path: Path, width: int = 1440, drawn: str = DRAWN, **context: Any) -> Page:
        page = browser.new_context(viewport={"width": width, "height": 900}, **context).new_page()
        watched.append(Watched(page))
        return watched[-1].open(path, drawn)

    yield open_
    for w in watched:
        w.page.context.close()
        assert w.faults == []


def methods_of(page: Page) -> list[str]:
    return [
        str(row.get_attribute("data-method"))
        for row in page.query_selector_all("#scores tbody tr")
        if row.is_visible()
    ]


def test_every_chart_is_drawn_and_nothing_is_asked_of_the_network(few: Path, opened: Any) -> None:
    page = opened(few)
    drawn = page.eval_on_selector_all(
        ".chart", "all => all.map(c => [c.dataset.name, !!c.querySelector('svg path')])"
    )
    assert dict(drawn) == dict.fromkeys(USUAL, True)
    assert "could not be drawn" not in page.inner_text("main")
    assert NEGATIVE_TEXT in page.inner_text("#browse")


# --- the rest takes longer ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [340, 390, 768, 1024, 1440, 2200])
@pytest.mark.parametrize("report_of", ["few", "many"])
def test_no_page_is_wider_than_its_window(
    width: int, report_of: str, request: pytest.FixtureRequest, opened: Any
) -> None:
    page = opened(request.getfixturevalue(report_of), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.query_selector_all(".chart"):
        box, inside = chart.bounding_box(), chart.query_selector("svg").bounding_box()
        assert inside["width"] <= box["width"] + 1, chart.get_attribute("data-name")
        assert inside["height"] > 80


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_word_of_a_chart_is_cut_or_lies_on_another(grid: Path, width: int, opened: Any) -> None:
    page = opened(grid, width)
    letters = """all => all.map(function (chart) {
      const box = chart.querySelector("svg").getBoundingClientRect();
      return [chart.dataset.name, [...chart.querySelectorAll("svg text")]
        .filter(t => t.textContent).map(function (t) {
          const at = t.getBoundingClientRect();
          const turned = (t.getAttribute("transform") || "").includes("rotate");
          return {text: t.textContent, left: at.left, right: at.right, top: at.top, turned,
            bottom: at.bottom, out: at.left < box.left - 1 || at.right > box.right + 1};
        })];
    })"""
    for name, words in page.eval_on_selector_all(".chart", letters):
        assert not [w["text"] for w in words if w["out"] or w["text"].endswith("…")], name
        flat = [w for w in words if not w["turned"]]
        crossing = [
            (a["text"], b["text"])
            for a, b in itertools.combinations(flat, 2)
            if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 2
            and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 5
        ]
        assert not crossing, name


@pytest.mark.slow
def test_a_row_is_a_card_on_a_telephone(grid: Path, opened: Any) -> None:
    page = opened(grid, 390)
    for table in page.query_selector_all("main table"):
        if table.is_visible():
            assert table.evaluate("t => t.scrollWidth") <= 390
    cell = page.locator("#scores tbody tr").first.locator("td:visible").first
    heading = cell.evaluate("c => getComputedStyle(c, '::before').content")
    assert heading == '"Test accuracy, %"'
    names = page.locator("#scores tbody .name").all_inner_texts()
    assert "lora r=4 a=16" in names


@pytest.mark.slow
def test_the_table_sorts_by_mouse_and_by_keyboard(many: Path, opened: Any) -> None:
    page = opened(many)
    first = methods_of(page)
    assert len(first) == len(MANY)
    head = page.locator("#scores th[data-name=train_seconds]")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    at = head.evaluate("e => e.cellIndex")
    cell = f"rows => rows.map(r => Number(r.cells[{at}].dataset.sort))"
    values = page.eval_on_selector_all("#scores tbody tr", cell)
    assert values == sorted(values, reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert page.eval_on_selector_all("#scores tbody tr", cell) == sorted(values)
    page.locator("#scores th[data-name=method] button").click()
    assert methods_of(page) == sorted(first)


@pytest.mark.slow
def test_the_table_filters_and_shows_other_columns_and_downloads_them(
    many: Path, opened: Any
) -> None:
    page = opened(many)
    page.fill("[data-filter=scores]", "lora r=8")
    assert methods_of(page) == ["lora[r=8]"]
    assert page.inner_text("[data-for=scores] .count") == f"1 of {len(MANY)} methods"
    page.fill("[data-filter=scores]", "lora")
    shown = methods_of(page)
    assert set(shown) == {"lora[r=4]", "lora[r=8]", "lora[r=16]", "qlora-4bit"}
    head = page.locator("#scores th[data-name=test_f1_macro]")
    assert not head.is_visible()
    page.click("details.menu > summary")
    page.check("[data-column=test_f1_macro]")
    page.uncheck("[data-column=train_seconds]")
    page.keyboard.press("Escape")
    assert head.is_visible()
    assert not page.locator(".menu .box").is_visible()
    with page.expect_download() as download:
        page.click("[data-csv=scores]")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["method"] for r in rows] == shown
    assert "train_seconds" not in rows[0]
    values = [float(r["test_f1_macro"]) for r in rows]
    assert all(0 < v < 1 for v in values)
    assert float(rows[0]["test_f1_macro_low"]) < values[0] < float(rows[0]["test_f1_macro_high"])


@pytest.mark.slow
def test_a_method_is_followed_through_every_chart(few: Path, opened: Any) -> None:
    page = opened(few)
    faint = (
        "c => [...c.querySelectorAll('svg [opacity]')]"
        ".filter(e => Number(e.getAttribute('opacity')) < 0.3).length"
    )

    def faded() -> dict[str, int]:
        return {
            str(c.get_attribute("data-name")): c.evaluate(faint)
            for c in page.query_selector_all(".chart")
        }

    before = faded()
    chip = page.locator(".follow button", has_text="svm-tfidf")
    chip.focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert chip.get_attribute("aria-pressed") == "true"
    during = faded()
    assert all(during[name] > before[name] for name in USUAL), (before, during)
    rows = page.locator("#scores tbody tr.faded")
    assert rows.count() == 3
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert faded() == before
    # A bar in a chart says the same as the button.
    page.locator("#chart-costs svg .mark-rect path[fill='#009E73']").first.click()
    page.wait_for_timeout(300)
    assert page.locator(".follow button[aria-pressed=true]").get_attribute("data-method") == "full"


@pytest.mark.slow
def test_another_cost_is_chosen_and_a_chart_saved(few: Path, opened: Any) -> None:
    page = opened(few)
    figure = page.locator("figure", has=page.locator("#chart-cost"))
    assert figure.locator("h3").inner_text() == "Accuracy against training time"
    figure.locator("select").select_option(label="Peak memory")
    page.wait_for_timeout(500)
    assert figure.locator("h3").inner_text() == "Accuracy against peak memory"
    assert "peak memory, MB (log scale)" in page.locator("#chart-cost svg").inner_html()
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.click(f"[data-save={kind}][data-of=roc]")
        assert Path(download.value.path()).read_bytes().startswith(start)


@pytest.mark.slow
def test_a_chart_zooms_with_control_and_the_wheel_and_scrolls_without(
    few: Path, opened: Any
) -> None:
    page = opened(few)
    chart = page.locator("#chart-roc")
    chart.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    line = "c => c.querySelector('.mark-line path').getAttribute('d')"
    before, box = chart.evaluate(line), chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    at = page.evaluate("scrollY")
    page.mouse.wheel(0, 40)
    page.wait_for_timeout(300)
    assert chart.evaluate(line) == before
    assert page.evaluate("scrollY") != at
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    page.wait_for_timeout(300)
    assert chart.evaluate(line) != before
    assert page.evaluate("window.devicePixelRatio") == 1


@pytest.mark.slow
def test_mistakes_are_searched_filtered_and_shown_further(many: Path, opened: Any) -> None:
    page = opened(many)
    rows = page.locator("#browse > li")
    assert rows.count() == 10
    total = int(page.inner_text("#browse-count").split()[0])
    page.click("#browse-more")
    assert rows.count() == min(20, total)
    page.select_option("#browse-show", "of:0")
    first = rows.locator(".said li:first-child")
    assert set(first.evaluate_all("all => all.map(e => e.className)")) == {"wrong"}
    page.select_option("#browse-show", "all")
    assert page.locator("#browse .said .right").count() == 0
    page.select_option("#browse-show", "any")
    page.select_option("#browse-label", "1")
    truths = page.locator("#browse .truth strong").all_inner_texts()
    assert set(truths) == {"positive"}
    word = re.findall(r"\w{5,}", page.locator("#browse .review").first.inner_text())[0]
    page.fill("#browse-search", word)
    shown = page.locator("#browse .review").all_inner_texts()
    assert shown
    assert all(word.lower() in text.lower() for text in shown)
    page.fill("#browse-search", "no text says this")
    assert page.inner_text("#browse-count") == "0 rows"


@pytest.mark.slow
def test_the_page_is_dark_on_a_dark_system_and_light_on_paper(
    few: Path, opened: Any, tmp_path: Path
) -> None:
    page = opened(few, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(16, 21, 27)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert not page.locator(".tools").first.is_visible()
    paper = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 40
    assert opened(few, color_scheme="light").evaluate(ground) == "rgb(246, 247, 249)"


@pytest.mark.slow
def test_everything_that_can_be_turned_is_reached_by_the_keyboard(few: Path, opened: Any) -> None:
    page = opened(few)
    # Which link the reader is at changes on the way.
    what = "e => e.outerHTML.replace(/ aria-current=.true./, '').slice(0, 160)"
    reached = set()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(250):
        reached.add(page.evaluate(f"({what})(document.activeElement)"))
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    wanted = page.eval_on_selector_all(
        "button, select, input, summary, nav a",
        f"all => all.filter(e => e.checkVisibility()).map({what})",
    )
    assert set(wanted) <= reached
    named = page.eval_on_selector_all(
        "button, select, input",
        "all => all.filter(e => !(e.textContent.trim() || e.labels?.length || e.ariaLabel)).length",
    )
    assert named == 0


@pytest.mark.slow
def test_fifty_trials_open_soon(many: Path, opened: Any) -> None:
    started = time.perf_counter()
    page = opened(many)
    # Generous, because the machine may be busy; benchmarks/report.py measures.
    assert time.perf_counter() - started < 45
    assert page.evaluate("performance.now()") < 45_000


# --- labels in doubt ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three rows in doubt, with names and texts that would break a careless page."""
    folder = tmp_path_factory.mktemp("review")
    study = make_study(folder, methods=METHODS[:1], label_names=(NASTY, "good"), seeds=1, rows=60)
    rows = tuple(
        DoubtedRow(f'r{i}, "{NASTY}', "test", f"{NEGATIVE_TEXT} {NASTY} {i}", i % 2, 1 - i % 2, *p)
        for i, p in enumerate([(0.01, 0.99), (0.02, 0.98), (0.1, 0.9)])
    )
    page = render_review(read_study(study), RowsInDoubt(rows, 60, 0.4, ""))
    (folder / "review.html").write_text(page, encoding="utf-8")
    return folder / "review.html"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_labels_are_reviewed_by_keyboard_and_saved(review: Path, opened: Any, width: int) -> None:
    page = opened(review, width, drawn="#row:not([hidden])", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 27)"
    assert page.inner_text("#place") == "Row 1 of 3"
    assert NASTY in page.inner_text("#text")
    assert page.is_disabled("#save")
    for key in "ksuc":  # keep the first; skip the second, take that back and change it
        page.keyboard.press(key)
    page.reload()  # what was answered is kept
    assert page.inner_text("#place") == "Row 3 of 3"
    page.keyboard.press("2")  # not the likeliest label, but its own
    page.keyboard.press("1")
    page.keyboard.press("c")
    assert page.inner_text("#result") == "1 to change, 2 right as they are, 0 skipped."
    page.keyboard.press("u")
    page.keyboard.press("c")
    with page.expect_download() as saved:
        page.click("#save")
    path = saved.value.path()
    written = read_corrections(str(path))
    assert [(one.id, one.old, one.new) for one in written.rows] == [
        (f'r1, "{NASTY}', "good", NASTY),
        (f'r2, "{NASTY}', NASTY, "good"),
    ]
    assert written.rows[0].text_sha256 == text_digest(f"{NEGATIVE_TEXT} {NASTY} 1")
    assert Path(written.study).name == "study"
