"""A sample of benchmarks/fuzz_files.py: mutated files are read, or refused in a line."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import pytest

FUZZ = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "fuzz_files.py"))


def test_the_files_that_are_mutated_are_good(tmp_path: Path) -> None:
    tally = FUZZ["Tally"]()
    for i, (ending, content) in enumerate(FUZZ["good_files"]()):
        path = tmp_path / f"{i}{ending}"
        path.write_bytes(content)
        FUZZ["one_case"](FUZZ["read_texts_of"], path, tally)
    assert (tally.ends["read"], tally.wrong) == (10, [])


def test_another_error_is_found(tmp_path: Path) -> None:
    def read(_: Path) -> None:
        raise KeyError("x")

    tally, path = FUZZ["Tally"](), tmp_path / "r.csv"
    path.write_bytes(b"")
    FUZZ["one_case"](read, path, tally)
    assert tally.ends == {"other error": 1}
    assert "KeyError at test_fuzz_files.py" in tally.lines()[-1]


def test_mutations_are_told_by_their_seed() -> None:
    draws = [FUZZ["changed_bytes"](b"text,label\n" * 9, random.Random(3)) for _ in range(2)]  # noqa: S311
    assert draws[0] == draws[1] != b"text,label\n" * 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_mutated_file_is_a_traceback_or_out_of_bounds(tmp_path: Path, seed: int) -> None:
    tally = FUZZ["run"](1_500, seed, tmp_path)
    assert not tally.wrong, "\n".join(tally.lines())
    assert tally.ends["read"] > 100
