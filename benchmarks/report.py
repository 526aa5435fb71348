"""How large the report of 50 trials is, how long it takes to write and to open.

    python benchmarks/report.py [--rows 1066] [--runs 3]

Ten methods, five seeds, real store files from synthetic scores (tests/studies.py), the texts of
the bundled reviews. Opening: headless Chromium, from the request to the last chart drawn, and to
the first chart.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from studies import MANY, make_study, make_texts
from tunelab import report
from tunelab.analysis import summarise
from tunelab.core.study_folder import read_study


def opened(path: Path, runs: int) -> tuple[list[float], list[float]]:
    """Seconds to the first chart and to the last, in fresh pages of one browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    first, last = [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(runs + 1):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
            ms = page.evaluate("({...document.documentElement.dataset})")
            first.append(int(ms["firstDrawn"]) / 1e3)
            last.append(int(ms["drawn"]) / 1e3)
            page.close()
        browser.close()
    return first[1:], last[1:]  # the first page pays for the browser's start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1066, help="rows of the test part")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_study(Path(scratch), methods=MANY, seeds=5, rows=given.rows)
        record = read_study(folder)
        texts = make_texts(given.rows)
        path = Path(scratch) / "report.html"
        summarised, written = [], []
        for _ in range(given.runs):
            started = time.perf_counter()
            said = summarise(record)
            summarised.append(time.perf_counter() - started)
            started = time.perf_counter()
            report.write_report(record, path, said, texts)
            written.append(time.perf_counter() - started)
        first, last = opened(path, given.runs)
        print(f"{len(record.done)} trials, {given.rows} test rows, median of {given.runs} runs")
        print(f"size              {path.stat().st_size / 1e6:.2f} MB")
        for name, seconds in (
            ("summary", summarised),
            ("write the report", written),
            ("open: first chart", first),
            ("open: all charts", last),
        ):
            print(f"{name:<18}{statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
