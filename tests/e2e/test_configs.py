"""The ready studies in configs/: what their grids expand to."""

from __future__ import annotations

from pathlib import Path

from tunelab import config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_a_grid_names_its_points() -> None:
    by_file = {p.stem: [m.label for m in config.load(p, {}).methods] for p in CONFIGS}
    assert [f"lora[r={r}]" for r in (4, 8, 16, 32)] == [
        n for n in by_file["rank"] if n.startswith("lora[")
    ]
    assert all(len(set(names)) == len(names) for names in by_file.values())
