"""The report: complete, self-contained, valid, safe with any text, and without empty sections."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from studies import MANY, METHODS, NEGATIVE_TEXT, make_study, make_texts
from tunelab import report
from tunelab.analysis import summarise
from tunelab.analysis.confusions import confused_pairs, confusion_sums, confusions_in_words
from tunelab.core.study_folder import StudyRecord, read_study
from tunelab.report import evidence
from tunelab.report.charts import PLOTS
from tunelab.report.mistakes import mistakes
from tunelab.report.page import SECTIONS, _bundle, render, safe_json
from tunelab.report.using import how_to_use

VOID = {"meta", "link", "br", "hr", "img", "input"}
# Charts of a study that has no parts of its own: no tuning, no sizes, no other data.
UNUSUAL = {"sensitivity", "tuning", "learning", "transfer", "slices", "behaviour"}
USUAL = [p for p in PLOTS if p not in UNUSUAL]
NASTY = '</script><script>alert(1)</script><!-- \u2028 & "quoted" \''


class Page(HTMLParser):
    """Reads a page, checks that its elements nest, and keeps what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.elements[-1][1], text))
        elif self.open and self.open[-1] != "style":
            self.texts.append(text)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag]

    def specs(self) -> dict[str, Any]:
        return {
            str(a["id"]): json.loads(body)[0]["spec"]
            for a, body in self.scripts
            if a.get("type") == "application/json" and str(a["id"]).startswith("spec-")
        }


def html_of(record: StudyRecord) -> str:
    return render(record, summarise(record), make_texts())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return read_study(make_study(tmp_path_factory.mktemp("study"), fail=[("lora", 1)]))


@pytest.fixture(scope="module")
def html(record: StudyRecord) -> str:
    return html_of(record)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# --- whole ----------------------------------------------------------------------------------


def test_is_one_small_file_that_fetches_nothing(record: StudyRecord, tmp_path: Path) -> None:
    path = report.write_report(record, tmp_path / "deep" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 1_500_000
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("img")
    assert not page.all("iframe")
    assert all("src" not in a for a in page.all("script"))
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    assert all(str(a["href"]).startswith("#") for a in page.all("a"))
    style = re.search(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(a for a in page.all("meta") if a.get("http-equiv"))
    assert "default-src 'none'" in str(policy["content"])


def test_is_the_same_twice(record: StudyRecord, html: str) -> None:
    assert html_of(record) == html


def test_sections_come_in_the_order_of_a_reader(page: Page) -> None:
    order = [a["id"] for a in page.all("section") if "id" in a]
    there = [i for i in ["verdict", *SECTIONS] if i in order]
    assert order == there
    without = {"sensitivity", "race", "learning", "transfer", "slices", "versus", "forms"}
    assert set(SECTIONS) - set(order) == without
    assert [a["href"] for a in page.all("a")][1:] == [f"#{name}" for name in order]


def test_says_what_the_summary_says(record: StudyRecord, page: Page) -> None:
    said = summarise(record)
    for sentence in (*said.sentences, *said.warnings):
        assert re.sub(r"\s+", " ", sentence) in page.text
    for row in said.rows:
        assert row.label in page.text
    assert "Which way of fine-tuning is worth it on demo?" in page.text


def test_shows_the_command_provenance_and_how_to_use_it(page: Page) -> None:
    assert "tunelab compare demo --seeds 3" in page.text
    assert "2.13.0" in page.text
    assert "24.00 GB" in page.text
    assert re.search(r"tunelab predict \S+/trials/full-\d-5f2c1e/artifact", page.text)
    assert "tunelab.load(" in page.text
    assert "films:90" in page.text


def test_paths_are_seen_from_here(record: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(record.directory.parent.parent)
    text = Page(html_of(record)).text
    assert "tunelab predict runs/study/trials/" in text
    assert str(record.directory) not in text


def test_every_plot_is_there_with_words_beside_it(page: Page) -> None:
    assert set(page.specs()) == {f"spec-{name}" for name in USUAL}
    charts = [a for a in page.all("div") if a.get("class") == "chart"]
    assert [a["data-name"] for a in charts] == USUAL
    for a in charts:
        assert a["role"] == "img"
        assert len(str(a["aria-label"])) > 40


def test_is_made_for_keyboards_and_screen_readers(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1, landmark
    assert all("scope" in a for a in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(named) <= set(ids)
    headings = [int(t[1]) for t, _ in page.elements if re.fullmatch(r"h\d", t)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


def test_adapter_and_head_parameters_stand_apart(page: Page) -> None:
    assert "Adapter params" in page.text
    assert "Head params" in page.text
    assert "0.30M" in page.text


# --- hostile names --------------------------------------------------------------------------


def test_texts_labels_and_errors_are_shown_as_text(tmp_path: Path) -> None:
    methods = [replace(METHODS[3], label=NASTY), METHODS[2]]
    folder = make_study(
        tmp_path,
        methods=methods,
        label_names=(NASTY, "<img src=x onerror=alert(1)>"),
        source="<b>reviews</b>.csv",
        seeds=2,
        data={"notes": [NASTY], "samples": {NASTY: [NASTY]}},
    )
    html = html_of(read_study(folder))
    page = Page(html)
    # Beside the values of the charts: the chart library and our own script, and nothing else.
    assert len([a for a, _ in page.scripts if not a]) == 2
    assert not page.all("img")
    assert not page.all("b")
    assert "</script><script>alert(1)" in page.text
    for body in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL):
        assert "<" not in body
        assert "\u2028" not in body
    shown = json.dumps(page.specs()["spec-confusion"], ensure_ascii=False)
    assert json.dumps(NASTY, ensure_ascii=False) in shown


@pytest.mark.parametrize("text", ["</script>", "<!--", "\u2028", "&amp;", "]]>"])
def test_safe_json_means_the_same_and_ends_no_script(text: str) -> None:
    written = safe_json({"a": [text]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"a": [text]}


def test_a_folder_with_spaces_and_quotes_is_quoted_for_the_shell(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path / "my study's folder", seeds=1))
    use = how_to_use(record, summarise(record))
    assert use is not None
    split = subprocess.run(
        ["sh", "-c", use["shell"].replace("tunelab predict", "printf '%s\\n'")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "my study's folder" in split[0]
    assert split[1] == "a quiet, wonderful film"


# --- what is missing is absent --------------------------------------------------------------


def test_svms_alone_have_no_curves(tmp_path: Path) -> None:
    page = Page(html_of(read_study(make_study(tmp_path, methods=METHODS[:2]))))
    assert {"spec-loss", "spec-validation"} & set(page.specs()) == set()
    assert {"spec-differences", "spec-cost", "spec-roc"} < set(page.specs())
    assert "log loss" not in page.text
    assert "curves" not in {a.get("id") for a in page.all("section")}


def test_one_method_and_one_seed(tmp_path: Path) -> None:
    page = Page(html_of(read_study(make_study(tmp_path, methods=METHODS[3:], seeds=1))))
    assert "spec-differences" not in page.specs()
    assert "spec-cost" not in page.specs()
    assert "there is nothing to compare it with" in page.text
    assert "failed" not in {a.get("id") for a in page.all("section")}


def test_nothing_finished(tmp_path: Path) -> None:
    folder = make_study(tmp_path, seeds=1, fail=[(m.name, 0) for m in METHODS])
    html = html_of(read_study(folder))
    page = Page(html)
    assert [a["id"] for a in page.all("section")] == ["verdict", "data", "failed", "made"]
    assert len(html) < 100_000
    assert "No trial finished" in page.text


def test_unfinished_study_is_reported_as_such(tmp_path: Path) -> None:
    page = Page(html_of(read_study(make_study(tmp_path, missing=[("full", 1)]))))
    assert "1 of 12 trials has not been run" in page.text


def test_many_classes(tmp_path: Path) -> None:
    folder = make_study(tmp_path, n_classes=60, rows=600, seeds=1)
    page = Page(html_of(read_study(folder)))
    assert "spec-confusion" not in page.specs()
    assert "10 easier classes are not shown" in page.text


def test_five_classes(tmp_path: Path) -> None:
    page = Page(html_of(read_study(make_study(tmp_path, n_classes=5, seeds=2))))
    assert set(page.specs()) == {f"spec-{name}" for name in USUAL}
    assert "one class against the rest" in page.text


def test_a_class_without_test_rows_has_no_roc_but_a_report(tmp_path: Path) -> None:
    names = ("a", "b", "never")
    folder = make_study(tmp_path, n_classes=3, label_names=names, seeds=1)
    record = read_study(folder)
    results = tuple(replace(r, scores={**r.scores, "test_roc_auc": None}) for r in record.results)
    assert "spec-roc" not in Page(html_of(replace(record, results=results))).specs()


def test_unscored_test_part(tmp_path: Path) -> None:
    page = Page(html_of(read_study(make_study(tmp_path, score_test=False))))
    assert "The test part was not scored" in page.text
    assert "on validation" in page.text


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 4])
def test_roc_curves_enclose_the_area_that_scikit_learn_finds(tmp_path: Path, k: int) -> None:
    record = read_study(make_study(tmp_path, n_classes=k, seeds=1, rows=400))
    data = evidence.plot_data(record, summarise(record))
    for r in record.done:
        p = record.predictions(r.spec.trial_id)["test"]
        scores = np.asarray(p.scores)
        if k == 2:
            expected = roc_auc_score(p.labels, scores[:, 1] - scores[:, 0])
        else:
            if p.score_kind == "logit":
                scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            expected = np.mean([roc_auc_score(p.labels == c, scores[:, c]) for c in range(k)])
        curve = data.roc[r.spec.method.label]
        assert curve.auc == pytest.approx(expected, abs=1e-9)
        area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
        assert area == pytest.approx(expected, abs=0.01)


def test_confusion_is_summed_over_seeds(record: StudyRecord) -> None:
    data = evidence.plot_data(record, summarise(record))
    assert np.sum(data.confusion["full"]) == 3 * 288
    assert np.sum(data.confusion["lora"]) == 2 * 288


def test_comparison_json_is_the_summary(record: StudyRecord, tmp_path: Path) -> None:
    path = report.write_comparison(record, tmp_path / "comparison.json")
    body = json.loads(path.read_text(encoding="utf-8"))
    assert body["best"] == summarise(record).best
    assert len(body["comparisons"]) == 6


@pytest.mark.parametrize("k", [2, 4])
def test_average_precision_is_that_of_scikit_learn(tmp_path: Path, k: int) -> None:
    record = read_study(make_study(tmp_path, n_classes=k, seeds=1, rows=400, methods=METHODS[2:]))
    data = evidence.plot_data(record, summarise(record))
    for r in record.done:
        p = record.predictions(r.spec.trial_id)["test"]
        share = np.exp(p.scores) / np.exp(p.scores).sum(axis=1, keepdims=True)
        classes = [1] if k == 2 else range(k)
        expected = np.mean([average_precision_score(p.labels == c, share[:, c]) for c in classes])
        curve = data.precision_recall[r.spec.method.label]
        assert curve.area == pytest.approx(expected, abs=1e-9)
        assert curve.y[-1] == pytest.approx(np.mean([np.mean(p.labels == c) for c in classes]), 0.2)


def test_the_front_is_what_nothing_beats(record: StudyRecord) -> None:
    data = evidence.plot_data(record, summarise(record))
    for cost in data.costs:
        sign = -1 if cost.higher_is_better else 1
        at = {m: (data.scores[m].value, sign * cost.estimates[m].value) for m in data.methods}
        for m, (score, spent) in at.items():
            beaten = any(
                s >= score and c <= spent and (s, c) != (score, spent) for s, c in at.values()
            )
            assert (m in cost.front) == (not beaten), (cost.name, m)


# --- single rows ----------------------------------------------------------------------------


def test_mistakes_are_those_of_the_predictions(record: StudyRecord) -> None:
    said = summarise(record)
    found = mistakes(record, said, make_texts())
    assert found is not None
    by_method = evidence.by_method(record, "test")
    assert found.methods == tuple(by_method)
    place = {row_id: i for i, row_id in enumerate(by_method["full"][0].ids)}
    for row in found.shown:
        i = place[row.id]
        assert any(s.predicted != row.label for s in row.said)
        for method, s in zip(found.methods, row.said, strict=True):
            runs = by_method[method]
            assert row.label == runs[0].labels[i]
            assert s.seeds_agreeing == sum(int(p.predicted[i]) == s.predicted for p in runs)
    wrong = {
        place
        for place in range(288)
        if any(
            np.mean([evidence._comparable(p)[place] for p in runs], axis=0).argmax()
            != runs[0].labels[place]
            for runs in by_method.values()
        )
    }
    assert found.total == len(found.shown) == len(wrong)


def test_no_texts_no_mistakes_but_a_report(record: StudyRecord) -> None:
    page = Page(render(record, summarise(record)))
    assert "The most confident mistakes" not in page.text
    assert "mistakes" in {a.get("id") for a in page.all("section")}  # the agreement is there


def test_a_review_with_a_script_is_shown_as_text(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, seeds=1, rows=60))
    texts = {f"test:{i}": f"{i} {NEGATIVE_TEXT}" for i in range(60)}
    html = render(record, summarise(record), texts)
    page = Page(html)
    assert "<script>alert('not run')</script>" in page.text
    bodies = [b for a, b in page.scripts if a.get("id") == "mistakes-data"]
    assert len(bodies) == 1
    assert "<" not in bodies[0]
    rows = json.loads(bodies[0])["rows"]
    assert all(NEGATIVE_TEXT in row["text"] for row in rows)


def test_fifty_trials_stay_below_five_megabytes(tmp_path: Path) -> None:
    record = read_study(make_study(tmp_path, methods=MANY, seeds=5, rows=200))
    assert len(record.done) == 50
    path = report.write_report(record, tmp_path / "r.html", texts=make_texts(200))
    assert path.stat().st_size < 5_000_000


def test_what_to_take_and_what_the_settings_do(tmp_path: Path) -> None:
    lora = METHODS[3]
    grid = [
        replace(lora, label=f"lora[r={r}]", settings={**lora.settings, "r": r}) for r in (4, 16)
    ]
    record = read_study(make_study(tmp_path, methods=[METHODS[0], *grid], seeds=2, rows=60))
    html = render(record, summarise(record))
    assert "What to take" in html
    assert "Who is beaten in both" in html
    assert "What the settings of lora do" in html
    assert "full grid of 2 settings x 2 seeds" in html


def test_the_chart_library_is_kept_and_a_broken_copy_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path))
    made = _bundle.__wrapped__()
    (kept,) = (tmp_path / "machine").glob("vega-*.js")
    sealed = kept.read_text(encoding="utf-8")
    assert sealed.startswith(made)  # its checksum follows
    for broken in (f"{made} ", made[:-1000], sealed.replace("vega", "Vega", 1)):
        kept.write_text(broken, encoding="utf-8")
        assert _bundle.__wrapped__() == made
        assert kept.read_text(encoding="utf-8") == sealed


def test_many_classes_have_their_confused_pairs_in_a_table(tmp_path: Path) -> None:
    """No matrix of 40 classes can be read: every pair is there, to be searched, and it is said."""
    record = read_study(make_study(tmp_path, n_classes=40, seeds=2, methods=METHODS[2:4], rows=800))
    said = summarise(record)
    counts = confusion_sums(record, "test")[str(said.best)]
    pairs = confused_pairs(counts, record.data["label_names"])
    page = Page(html_of(record))
    assert "A matrix of 40 classes cannot be read as a chart: search these pairs." in page.text
    table = html_of(record).partition('id="confusions"')[2].partition("</table>")[0]
    assert table.count("<tr>") == 1 + len(pairs) > 41
    worst = pairs[0]
    first = f'<th scope="row">{worst.true}</th><td>{worst.predicted}</td>'
    assert table.index(first) == table.index('<th scope="row">')
    told = confusions_in_words(record, said)
    assert told is not None
    assert told.startswith(f"{said.best} most often takes {100 * worst.share:.0f}% of")
    assert f"{len(pairs)} pairs of 40 classes in report.html" in told


def test_two_classes_need_no_table_of_pairs(record: StudyRecord, html: str) -> None:
    assert 'id="confusions"' not in html
    assert confusions_in_words(record, summarise(record)) is None


def test_of_folds_the_page_counts_all_rows(record: StudyRecord) -> None:
    folds = {"of": 6, "rows": 1_920}
    there = replace(record, data={**record.data, "folds": folds})  # type: ignore[arg-type,typeddict-item]
    page = Page(html_of(there))
    assert "1,920 rows, each tested in one of 6 folds; 2 classes." in page.text
    assert "each of the 6 divides all rows anew" in page.text
    assert "each tested in one of" not in Page(html_of(record)).text
