"""Every statistical claim that a user can read, held to account by simulation.

    python benchmarks/statistics.py                     # the table of all claims
    python benchmarks/statistics.py --only verdicts folds --studies 400 --write

Studies whose truth is known are drawn from worlds that assume none of what the rules do
(`_worlds.py`) and given to the functions that judge real ones. Seeds are fixed: the same command
gives the same figures. `--write` keeps them in claims.json and in docs/statistics.md. Exit code 1
where a goal is missed by more than the Monte Carlo error.
"""

# ruff: noqa: A005  the guard below makes the standard module win wherever it is wanted

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "statistics":
    # A script in this folder, or a library it imports, wants the standard module of this name.
    import importlib.util
    import sysconfig

    _standard = Path(sysconfig.get_paths()["stdlib"]) / "statistics.py"
    _spec = importlib.util.spec_from_file_location("statistics", _standard)
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["statistics"] = _module
    _spec.loader.exec_module(_module)

import argparse
import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from _claims import Claim, Goal, table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "statistics.md"
KEPT = HERE / "claims.json"
TOPICS = (
    "verdicts",
    "folds",
    "chance",
    "looks",
    "selection",
    "front",
    "racing",
    "slices",
    "calibration",
)


def read_kept() -> dict[str, list[Claim]]:
    """What was found before, by topic."""
    if not KEPT.is_file():
        return {}
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return {
        topic: [Claim(**{**c, "goal": Goal(**c["goal"])}) for c in found]
        for topic, found in kept.items()
    }


def keep(found: Mapping[str, Sequence[Claim]]) -> None:
    """Write the claims of the topics that were run, beside those of the others."""
    whole = {**read_kept(), **found}
    values = {t: [asdict(c) for c in whole[t]] for t in TOPICS if t in whole}
    KEPT.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    page = _put(page, "claims", summary_table({t: whole[t] for t in TOPICS if t in whole}))
    for topic in TOPICS:
        if topic in whole:
            page = _put(page, topic, table(whole[topic]))
    PAGE.write_text(page, encoding="utf-8")


def _put(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = page.partition(begin)
    if not found:
        raise SystemExit(f"{PAGE.name}: expected a line {begin}, found none")
    return f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}"


def summary_table(found: Mapping[str, Sequence[Claim]]) -> str:
    """A row for each claim: what, where it is said, the figure of all its cells, the command."""
    lines = ["| claim | said in | cells | figure | goal | command |", "|---|---|---|---|---|---|"]
    for topic, claims in found.items():
        for name in dict.fromkeys((c.claim, c.said) for c in claims):
            cells = [c for c in claims if (c.claim, c.said) == name]
            low, high = min(c.value for c in cells), max(c.value for c in cells)
            figure = f"{100 * low:.1f}%" if low == high else f"{100 * low:.1f} to {100 * high:.1f}%"
            goals = dict.fromkeys(str(c.goal) for c in cells)
            missed = sum(not c.met for c in cells)
            late = f", **missed in {missed}**" if missed else ""
            command = f"`benchmarks/statistics.py --only {topic}`"
            lines.append(
                f"| {name[0]} | {name[1]} | {len(cells)} | {figure}{late} "
                f"| {', '.join(goals)} | {command} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=400, help="a cell (400)")
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=list(TOPICS))
    parser.add_argument("--write", action="store_true", help="into claims.json and the page")
    given = parser.parse_args()
    found: dict[str, list[Claim]] = {}
    for topic in given.only:
        began = time.perf_counter()
        found[topic] = list(importlib.import_module(f"_claims_{topic}").claims(given.studies))
        print(f"\n{topic}\n\n{table(found[topic])}", flush=True)
        print(f"{topic}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if given.write:
            keep({topic: found[topic]})
    sys.exit(0 if all(c.met for claims in found.values() for c in claims) else 1)


if __name__ == "__main__":
    main()
