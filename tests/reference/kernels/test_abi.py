"""What Python and the kernels' C++ have to agree on: each record and function, compared at load."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tunelab
from tunelab.core.errors import ConfigError
from tunelab.kernels import abi, build, library

CPP = build.SOURCE.parent
SRC = Path(tunelab.__file__).parent
RECORDS = {
    cls.__name__.removesuffix("Record"): cls
    for cls in ctypes.Structure.__subclasses__()
    if cls.__module__.startswith("tunelab.") and cls is not abi._AbiRow
}
LINES = [line for part in abi.LIBRARY_PARTS for line in part]
needs_library = pytest.mark.skipif(
    not library.available(), reason=f"no compiled kernels: {library.why_not()}"
)


def library_path() -> Path:
    path, _ = build.library()
    assert path is not None
    return path


def described() -> list[abi.Described]:
    return [
        abi._read_description(row) for row in abi._described_rows(ctypes.CDLL(str(library_path())))
    ]


def test_every_record_that_python_fills_in_is_compared() -> None:
    modules = [p.name for p in SRC.glob("**/*.py") if "ctypes.Structure" in p.read_text("utf-8")]
    assert modules == ["abi.py"]
    assert {line.name for line in LINES if line.of == "record"} == set(RECORDS)
    assert len(RECORDS) == 8
    for name, record in RECORDS.items():
        fields = [line.name for line in LINES if line.of == name]
        assert fields == [field for field, *_ in record._fields_]


def test_the_sources_describe_every_record_and_every_function() -> None:
    headers = "".join(p.read_text(encoding="utf-8") for p in CPP.glob("*.h"))
    assert set(re.findall(r"^  FIELDS\((\w+),", headers, re.MULTILINE)) == set(RECORDS)
    source = build.SOURCE.read_text(encoding="utf-8")
    listed = re.findall(r"^    FUNCTION\((\w+), (\w+), ", source, re.MULTILINE)
    names = [f"{name}_{kind}" for name, kind in listed]
    assert sorted(names) == sorted(line.name for line in LINES if line.of == "function")
    listed_records = re.findall(r"record_rows<(\w+)", source)
    assert set(listed_records) == set(RECORDS)


@needs_library
def test_the_library_is_the_one_that_is_called() -> None:
    found = described()
    abi.check_library(found)
    functions = abi.load_functions(library_path())
    assert set(functions) == {line.name for line in found if line.of == "function"}


@needs_library
def test_whatever_changes_on_one_side_is_named() -> None:
    found = described()
    for line in found:
        others = [each for each in found if each != line]
        moved = dataclasses.replace(line, number=line.number + 4)
        retyped = dataclasses.replace(line, letters=line.letters + "l")
        for changed in (moved, retyped):
            with pytest.raises(abi.AbiError, match=f"^{re.escape(line.title)} is .* here$"):
                abi.check_library([changed, *others])
        with pytest.raises(abi.AbiError, match=f"^the library lacks {re.escape(line.title)}$"):
            abi.check_library(others)
        renamed = dataclasses.replace(line, name="another")
        with pytest.raises(abi.AbiError, match=r"^the library has .*another, which is unknown"):
            abi.check_library([*others, renamed])


class PieceRecord(ctypes.Structure):
    """As `abi.PieceRecord`, but that `g` has moved to the front."""

    _fields_ = (abi.PieceRecord._fields_[3], *(f for f in abi.PieceRecord._fields_ if f[0] != "g"))


@needs_library
def test_a_field_that_was_moved_keeps_the_library_from_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doctored = abi.describe_records([PieceRecord], {})
    others = [line for line in abi.LIBRARY_PARTS[0] if "Piece" not in {line.of, line.name}]
    parts = ((*doctored, *others), *abi.LIBRARY_PARTS[1:])
    monkeypatch.setattr(abi, "LIBRARY_PARTS", parts)
    with pytest.raises(
        abi.AbiError, match=r"^field Piece\.p is p at 0 in the library and p at 8 here$"
    ):
        abi.load_functions(library_path())


@pytest.mark.skipif(build.compiler() is None, reason="there is no compiler")
def test_a_library_of_another_version_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, built = tmp_path / "other.cpp", tmp_path / "other.so"
    source.write_text('extern "C" int layers() { return 0; }\n', encoding="utf-8")
    command = [str(build.compiler()), "-shared", "-fPIC", str(source), "-o", str(built)]
    subprocess.run(command, check=True)
    monkeypatch.setenv("TUNELAB_KERNELS", str(built))
    with pytest.raises(ConfigError, match=r"of another version of tunelab: .* unset") as e:
        library._library.__wrapped__()
    assert "\n" not in str(e.value)
    assert str(built) in str(e.value)


@needs_library
def test_the_comparison_takes_less_than_two_milliseconds() -> None:
    code = (
        "import ctypes, sys, time; from pathlib import Path; from tunelab.kernels import abi\n"
        "ctypes.CDLL(sys.argv[1]); before = time.process_time()\n"
        "abi.load_functions(Path(sys.argv[1])); print(time.process_time() - before)"
    )
    command = [sys.executable, "-c", code, str(library_path())]
    seconds = min(
        float(subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout)
        for _ in range(3)
    )
    assert seconds < 0.002
