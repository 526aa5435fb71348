"""Take the pictures of the page of `tunelab serve` for the docs: docs/page-try.png and its like.

    make demo
    python benchmarks/page_pictures.py --study runs/demo

Serves the best model of two of the study's methods and a copy of the study, plans and begins a
study in the browser, and pauses it. Needs chromium and playwright, as the browser tests do. Look at
what came out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunelab.core.study_folder import artifact_dir, read_study

ROOT = Path(__file__).resolve().parents[1]
TEXT = "It's not the uninspired mess I'd feared: a quiet, wonderful film."
WIDE = {"width": 1100, "height": 760}
SHORT = {"width": 1100, "height": 560}
NARROW = {"width": 390, "height": 640}


@contextmanager
def serving(*given: object, place: Path) -> Iterator[str]:
    """The link to the page of a server of these models and folders, started in a folder."""
    command = [sys.executable, "-m", "tunelab", "serve", *map(str, given), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=place) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        try:
            yield next(m[0] for m in (re.search(r"http\S+token=\S+", line) for line in lines) if m)
        finally:
            process.terminate()


def try_a_text(page: Any) -> None:
    """Fill the panel Try, and wait for what moved the models."""
    page.fill("#text", TEXT)
    page.keyboard.press("Control+Enter")
    for i in (1, 2):
        page.wait_for_selector(f".card:nth-child({i}) .words")


def plan_a_study(page: Any) -> None:
    """Fill the panel New study with the bundled reviews, and plan it."""
    page.click("nav a[href='#new']")
    page.click("button:text-is('demo')")
    page.wait_for_selector("form")
    for method in ("svm", "full"):
        page.locator("label.check", has=page.locator(f"b:text-is('{method}')")).click()
    page.fill("form [pattern]", "reviews")
    page.locator("label.check", has_text="Tune each").click()
    page.click("button:text-is('Plan')")
    page.wait_for_selector(".tiles")


def take_pictures(browser: Any, link: str, out: Path) -> None:
    """All pictures, one after the other."""
    wide = browser.new_context(viewport=WIDE, device_scale_factor=0.9)
    narrow = browser.new_context(viewport=NARROW, color_scheme="dark")
    for context in (wide, narrow):
        context.set_default_timeout(300_000)
    page = wide.new_page()
    page.goto(link)
    try_a_text(page)
    page.screenshot(path=out / "page-try.png", full_page=True)
    plan_a_study(page)
    page.screenshot(path=out / "page-new.png", full_page=True)
    page.click("button:text-is('Start')")
    page.wait_for_selector("td:text-is('done')")
    page.wait_for_selector("td:has-text('loss')")
    page.screenshot(path=out / "page-study.png", clip={"x": 0, "y": 0, **SHORT})
    small = narrow.new_page()
    small.goto(link)
    small.click("nav a[href='#studies']")
    small.wait_for_selector(".state.running")
    small.screenshot(path=out / "page-narrow.png")
    page.click("button:text-is('Pause')")
    page.wait_for_selector("button:text-is('Continue')")


def main() -> None:
    """Serve, and take the pictures."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--study", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    record = read_study(given.study)
    firsts = {r.spec.method.label: r.spec.trial_id for r in reversed(record.done)}
    study = given.study.resolve()
    models = [f"{label}={artifact_dir(study, i)}" for label, i in sorted(firsts.items())[:2]]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        shutil.copytree(study, Path(folder) / "runs" / study.name)
        with serving(*models, "runs", place=Path(folder)) as link:
            browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            take_pictures(browser, link, given.out)
            browser.close()
    for path in given.out.glob("page-*.png"):  # few colours: a quarter of the size
        image = (
            Image.open(path)
            .convert("RGB")
            .quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )
        image.save(path, optimize=True)


if __name__ == "__main__":
    main()
