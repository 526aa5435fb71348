"""Run the benchmarks and write docs/performance.md from what they print.

python benchmarks/performance.py [--only training] [--artifact FOLDER] [--write]

Each run's JSON is kept in build/performance/, so that they can be run one at a time on a machine
that is quiet; `--write` only writes the page from what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE.parent / "build" / "performance"
PAGE = HERE.parent / "docs" / "performance.md"

RUNS: dict[str, list[str]] = {
    "training-lora": ["training.py"],
    "training-lora-batch-32": ["training.py", "--batch", "32", "--steps", "15"],
    "training-query-value": ["training.py", "--mode", "query-value"],
    "training-full": ["training.py", "--mode", "full"],
    "training-qlora-4bit": ["training.py", "--mode", "qlora-4bit", "--steps", "10"],
    "training-distilbert": ["training.py", "--model", "distilbert", "--steps", "10"],
    "training-deberta": ["training.py", "--model", "deberta-v2", "--steps", "10"],
    "training-modernbert": ["training.py", "--model", "modernbert", "--steps", "10"],
    "training-gpt2": ["training.py", "--model", "gpt2", "--steps", "10"],
    "inference": ["inference.py", "--artifact", "FOLDER"],
    "study": ["study.py"],
    "five-seeds": ["study.py", "--rows", "8530", "--trials", "5"],
    "scaling": ["scaling.py"],
    "roofline": ["roofline.py"],
}
# Ours as it runs unless something else is asked for.
OURS = ("tunelab, auto", "tunelab", "tunelab compare")
HEAD = """# Performance

Measured with the commands under each heading; only ratios within one run mean anything, because
machines differ and are shared. In every round each contestant runs once; a ratio is taken within
the round, and the median over the rounds is what is said. Written by `python
benchmarks/performance.py --write`; what was tried on the way, and failed, is in [the log](log.md).
How fast it is on matrix tiles stands [on a page of its own](performance-amx.md).
"""


def table(found: dict[str, Any], command: str) -> str:
    lines = [f"## {found['title']}", "", f"`python benchmarks/{command} --json`", ""]
    rows = found["rows"]
    if rows and "ratio" in rows[0]:
        unit = found["unit"]
        lines += [
            f"| | {unit} | lowest to highest | ratio | peak memory |",
            "|---|---|---|---|---|",
        ]
        for r in rows:
            peak = f"{r['peak_bytes'] / 1e9:.2f} GB" if r["peak_bytes"] else ""
            spread = f"{min(r['figures']):.3g} to {max(r['figures']):.3g}"
            lines.append(
                f"| {r['name']} | {r['median']:.3g} | {spread} | {r['ratio']:.2f}x | {peak} |"
            )
    elif rows:
        names = list(rows[0])
        lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
        for r in rows:
            cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()]
            lines.append("| " + " | ".join(cells) + " |")
    skip = {"title", "unit", "baseline", "rows", "hardware", "versions", "points"}
    facts = [f"- {k.replace('_', ' ')}: {said(v)}" for k, v in found.items() if k not in skip]
    machine = found.get("hardware") or {}
    where = [str(machine[k]) for k in ("processor", "cpu") if machine.get(k)]
    if machine.get("cores"):
        where.append(f"{machine['cores']} cores")
    lines += ["", *facts, *([f"- on {', '.join(where)}"] if where else []), ""]
    return "\n".join(lines)


def said(value: Any) -> str:
    """A fact as a reader takes it."""
    if isinstance(value, dict):
        return "; ".join(f"{k} {said(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(said, value))
    return str(value)


def glance(found: dict[str, dict[str, Any]]) -> str:
    """Each comparison with a peer in a line: the peer's figure, and how many times that is ours."""
    lines = [
        "| | peer | its figure | tunelab | exact float32 | peak memory, peer and tunelab |",
        "|---|---|---|---|---|---|",
    ]
    for one in found.values():
        ratios = {r["name"]: r for r in one["rows"]}
        ours = next((ratios[n] for n in OURS if n in ratios), None)
        if ours is None or one["baseline"] in OURS:
            continue
        base = ratios[one["baseline"]]
        exact = ratios.get("tunelab, float32") or ratios.get("tunelab float32")
        said_exact = f"{exact['ratio']:.1f}x" if exact else ""
        peaks = [f"{r['peak_bytes'] / 1e9:.2f}" for r in (base, ours) if r["peak_bytes"]]
        lines.append(
            f"| {one['title']} | {base['name']} | {base['median']:.3g} {one['unit']} | "
            f"**{ours['ratio']:.1f}x** | {said_exact} | "
            f"{' and '.join(peaks) + ' GB' if len(peaks) == 2 else ''} |"
        )
    return "\n".join(["## At a glance", "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", help="names that contain this")
    parser.add_argument("--artifact", help="a trained trial, whose accuracy inference.py compares")
    parser.add_argument("--write", action="store_true", help="only write the page")
    a = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, command in RUNS.items():
        if a.write or (a.only and a.only not in name):
            continue
        script, *more = (a.artifact if word == "FOLDER" else word for word in command)
        if None in more:
            sys.exit(f"{name}: name a trained LoRA trial with --artifact.")
        done = subprocess.run(
            [sys.executable, str(HERE / script), *more, "--json"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        # The peer prints its own lines before; ours is the JSON at the end.
        text = done.stdout[done.stdout.index("{\n") :]
        (KEPT / f"{name}.json").write_text(text, encoding="utf-8")
    kept = {n: KEPT / f"{n}.json" for n in RUNS}
    found = {n: json.loads(f.read_text("utf-8")) for n, f in kept.items() if f.is_file()}
    if not found:
        sys.exit("build/performance: nothing there yet. Run without --write first.")
    parts = [glance(found), *(table(one, " ".join(RUNS[n])) for n, one in found.items())]
    PAGE.write_text(HEAD + "\n" + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
