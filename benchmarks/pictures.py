"""Take the pictures of a study's report for the docs: docs/report.png, -dark and -narrow.

    python benchmarks/pictures.py --study runs/believable

Needs chromium and playwright, as the browser tests do. Look at what came out.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tunelab import study

ROOT = Path(__file__).resolve().parents[1]
# Name -> width and height in CSS pixels, pixels for each of them, and the colour scheme.
PICTURES = {
    "report": (1200, 1500, 0.75, "light"),
    "report-dark": (1200, 1100, 0.75, "dark"),
    "report-narrow": (390, 1100, 1.0, "light"),
}


def main() -> None:
    """Write the report anew, and take its pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--study", type=Path, default=Path("runs/believable"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    study.write_outputs(given.study)
    path = given.study / "report.html"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (width, height, scale, scheme) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                color_scheme=scheme,
            )
            page.goto(path.resolve().as_uri())
            page.wait_for_selector("html[data-drawn]", state="attached", timeout=120_000)
            page.screenshot(path=given.out / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
