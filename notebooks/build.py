"""Make the notebooks from notebooks/src: python notebooks/build.py [NAME...] runs and keeps them.

`--text` runs nothing: it brings the texts of all kept notebooks up to date, where code is as it was.

A source is a Python file in the percent format: `# %%` begins a code cell, `# %% [markdown]` a cell
of text, in comments. It is what is read, reviewed and edited; the notebook beside it is made, with
its outputs, and never edited by hand. Without outputs (`cells`) it costs nothing, which is how
tests/e2e/test_notebooks.py sees that none is behind its source.
"""

from __future__ import annotations

import ast
import base64
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = tuple(sorted((HERE / "src").glob("[0-9]*.py")))
SECONDS = 240  # no notebook may take longer on two cores that are free
PATIENCE = 900  # seconds for a cell, on a machine that is busy


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source) of each cell of a percent-format file."""
    out: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# %%"):
            out.append(("markdown" if "[markdown]" in line else "code", []))
        elif out:
            kind, lines = out[-1]
            lines.append(line.removeprefix("#").removeprefix(" ") if kind == "markdown" else line)
    return [(kind, "\n".join(lines).strip("\n")) for kind, lines in out]


def notebook(source: Path) -> Any:
    """The notebook of a source file, not run."""
    import nbformat

    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    made = [make[kind](text) for kind, text in cells(source.read_text(encoding="utf-8"))]
    for i, cell in enumerate(made):
        cell["id"] = f"cell-{i}"  # else random: a notebook that did not change would
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def run(source: Path) -> tuple[Any, float]:
    """Run a notebook in a scratch folder and a fresh kernel; it, with outputs, and its seconds.

    Raises nbclient's CellExecutionError, with the traceback, for a cell that fails.
    """
    from nbclient import NotebookClient

    made = notebook(source)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # Kernels inherit the environment: warnings shown in a notebook would be read as results.
        os.environ["PYTHONWARNINGS"] = "ignore"
        NotebookClient(made, timeout=PATIENCE, kernel_name="python3",
                       resources={"metadata": {"path": folder}}).execute()  # fmt: skip
    seconds = time.perf_counter() - started
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # times of day: of no use to a reader
        cell.outputs = _joined(cell.get("outputs", [])) if cell.cell_type == "code" else None
        if cell.cell_type != "code":
            del cell["outputs"]
    made.metadata.pop("language_info", None)
    return made, seconds


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with what was printed in one piece, however it was flushed, and pictures made small.

    What libraries say on standard error is about the machine that ran it: it is left out.
    """
    out: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        before = out[-1] if out else None
        if before and output.output_type == "stream" == before.output_type:
            before.text += output.text
        else:
            out.append(output)
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _small(output.data["image/png"])
    return out


def _small(png: str) -> str:
    """A picture (base64) in a palette of 128 colours: charts are as good, and weigh a tenth."""
    from PIL import Image

    out = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128)
    picture.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def kept(source: Path) -> Path:
    """Where a source's notebook is kept."""
    return HERE / f"{source.stem}.ipynb"


def retold(source: Path) -> Any:
    """The kept notebook with the texts of its source now; None where its code is another.

    A word in a text, or the place of a line break in code, is no reason to run anything.
    """
    import nbformat

    if not kept(source).is_file():
        return None
    made, before = notebook(source), nbformat.read(kept(source), as_version=4)
    now, then = ([c for c in n.cells if c.cell_type == "code"] for n in (made, before))
    if [ast.dump(ast.parse(c.source)) for c in now] != [
        ast.dump(ast.parse(c.source)) for c in then
    ]:
        return None
    for cell, ran in zip(now, then, strict=True):
        cell.outputs, cell.execution_count = _joined(ran.outputs), ran.execution_count
    return made


def main(names: list[str]) -> None:
    import nbformat

    if names[:1] == ["--text"]:
        for source in SOURCES:
            made = retold(source)
            if made is None:
                print(f"{source.stem}: its code changed, run it: build.py {source.stem}")
            else:
                nbformat.write(made, kept(source))
        return
    chosen = [s for s in SOURCES if not names or any(s.stem.startswith(n) for n in names)]
    for source in chosen:
        made, seconds = run(source)
        nbformat.write(made, kept(source))
        size = kept(source).stat().st_size / 1000
        print(f"{kept(source).name}: {seconds:.0f} s, {size:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
