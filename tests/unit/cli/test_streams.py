"""What reaches a terminal: nothing that it would carry out, in any encoding, to any reader."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from commands import run_here
from tiny import reviews, write_csv
from tunelab import cli
from tunelab.cli import streams, terminal
from tunelab.cli.lines import in_lines
from tunelab.cli.options import json_text
from tunelab.cli.streams import printable
from tunelab.cli.terminal import GuardedConsole

HOSTILE = "a\x1b]0;OWNED\x07b\x1b[2J\x1b[31mc\x9b31md\r\x08\x7fe\u202ef\u2028g\x9d0;x\x9ch\x1bcend"


def controls(text: str) -> set[str]:
    return {c for c in text if c not in "\t\n" and not printable(c)}


def test_escape_sequences_are_left_out_whole():
    assert printable(HOSTILE) == "abcdefghend"
    assert printable("naïve 😀\tfilm\n\u200dé") == "naïve 😀\tfilm\n\u200dé"


@given(st.text(st.characters(max_codepoint=0x2100)))
def test_nothing_that_a_terminal_carries_out_is_left(text):
    left = printable(text)
    assert not any(ord(c) < 32 and c not in "\t\n" for c in left)
    assert not any(0x7F <= ord(c) <= 0x9F for c in left)
    assert printable(left) == left


@given(st.text())
def test_json_that_is_printed_loses_nothing(text):
    printed = json_text({"text": text}, indent=1)
    assert json.loads(printed) == {"text": text}
    assert printed == printable(printed)


def test_a_console_styles_and_its_texts_do_not():
    out = io.StringIO()
    console = GuardedConsole(file=out, force_terminal=True, width=60, color_system="truecolor")
    table = Table("head\x1b[5m")
    table.add_row(Text(HOSTILE, style="bold"))
    console.print(table, Text("red \x1b]8;;http://x\x1b\\link", style="red"))
    with console.status(Text(f"running {HOSTILE}")):
        console.print(Text(HOSTILE))
    said = out.getvalue()
    assert "OWNED" in said or "end" in said
    assert "\x07" not in said
    assert "\x9b" not in said
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said
    assert "\x1b[5m" not in said
    assert "\x1b[" in said  # our own


def test_all_that_is_printed_goes_through_one_place():
    folder = Path(cli.__file__).parent
    for file in folder.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "click.echo", "click.secho", "Console"}, file.name


def test_labels_texts_names_and_columns_do_not_reach_a_terminal_raw(tmp_path):
    rows = [(f"{t} {HOSTILE}", f"{k}\x1b[35m\x9b31m") for t, k in reviews(60)]
    write_csv(tmp_path / "r.csv", rows, ("text", "label"))
    done = run_here("inspect", "data", tmp_path / "r.csv", "--max-length", 32)
    assert done.code == 0, done.err
    assert not controls(done.out)
    strange = tmp_path / "no\x1b[31m.csv"
    assert not controls(run_here("inspect", "data", strange).err)
    assert not controls(
        run_here("inspect", "data", tmp_path / "r.csv", "--text-column", HOSTILE).err
    )


# --- in a process of its own ----------------------------------------------------------------

CODE = """
import sys
from tunelab.cli import streams, terminal
streams.guard_streams()
import warnings
{body}
"""


def output(body: str, encoding: str = "utf-8") -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(body=body)],
        capture_output=True,
        timeout=60,
        check=True,
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )
    return done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "shift_jis"])
def test_no_encoding_is_too_small(encoding):
    said = output("streams.echo('é… ± 😀 語 \\udcff'); print('─ 😀')", encoding)
    text = said.decode(encoding)
    assert "\\U0001f600" in text
    assert "\\udcff" in text
    if encoding == "ascii":
        assert text.startswith("\\xe9... +- ")
        assert "\n- " in text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_columns_are_as_wide_as_what_is_printed(encoding):
    rows = "[['\U0001f600', '1'], ['語語 \x1b[31mx', '22'], ['plain', '333']]"
    said = output(f"terminal.print_table(['Label', 'Rows'], {rows})", encoding).decode(encoding)
    lines = said.splitlines()[:5]
    assert ("\\U0001f600" in said) == (encoding == "cp1252")
    assert {cell_len(line.rstrip()) for line in lines if not line.startswith("─")} == {
        cell_len(lines[0].rstrip())
    }


def test_lines_are_as_long_as_their_cells():
    words = " ".join(["語語語語"] * 10)
    assert [cell_len(x) for x in in_lines(words, 40, 2).splitlines()] == [35, 37, 19]
    assert in_lines("  plain words", 20) == "  plain words"


def test_what_libraries_print_is_guarded_too():
    said = output("print('a\\x1b[31mb'); print('\\r 50%', end=''); sys.stdout.write('\\rx\\n')")
    assert said == b"ab\n\r 50%x\n"


@pytest.mark.parametrize("verb", [["--help"], ["schema"]])
def test_a_reader_that_goes_and_a_disk_that_is_full(verb):
    command = f"{sys.executable} -m tunelab.cli {' '.join(verb)}"
    gone = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (gone.stdout, gone.stderr) == ("0\n", "")
    closed = subprocess.run(
        ["bash", "-c", f"{command} >&-"], capture_output=True, timeout=60, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
    full = subprocess.run(
        ["bash", "-c", f"{command} >/dev/full"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert line.startswith("tunelab: No space left")


@pytest.mark.parametrize("error", ["EDQUOT", "EIO", "ENOLCK", "EROFS", "EMFILE", "ESTALE"])
def test_what_the_system_refuses_is_one_line(monkeypatch, error):
    import errno
    import os

    from tunelab.cli import command_line

    def refuse(**_: object) -> None:
        number = getattr(errno, error)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(command_line, "app", refuse)
    done = run_here()
    assert done.code == 1
    (line,) = done.faults
    assert line.startswith("tunelab: ")
    assert streams.printable(line) == line


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (40, ["Method  Test  Latency", "───────────────────────",
              "lora    88.4   7.8 ms", "svm     74.5   0.6 ms"]),
        (20, ["lora", "  Test     88.4", "  Latency  7.8 ms", "",
              "svm", "  Test     74.5", "  Latency  0.6 ms"]),
    ],
)  # fmt: skip
def test_a_table_without_room_is_a_card_for_each_row(
    columns: int, lines: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [["lora", "88.4", "7.8 ms"], ["svm", "74.5", "0.6 ms"]]
    terminal.print_table(["Method", "Test", "Latency"], rows)
    printed = capsys.readouterr().out.rstrip().splitlines()
    assert [" ".join(x.split()) for x in printed] == [" ".join(x.split()) for x in lines]
    terminal.print_table(["Method", "Test", "Latency"], rows, all_of_it="--json has all.")
    assert (
        "No room for Latency: --json has all." in " ".join(capsys.readouterr().out.split())
    ) == (columns == 20)
