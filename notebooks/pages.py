"""Hooks of mkdocs: the kept notebooks become pages of the site, formulas become MathML.

Nothing of it needs a network, when the site is built or when it is read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
_FENCE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$(?=\S)([^$]+?)(?<=\S)\$(?![\w$])", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for path in sorted(HERE.glob("[0-9]*.ipynb")):
        page = File.generated(config, f"notebooks/{path.stem}.md", content=page_of(path))
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Formulas of every page; links to notebooks lead to their pages. The site has no source files:
    of a link to one, its name stays.
    """
    markdown = re.sub(r"\(\.\./notebooks/([\w-]+)\.ipynb\)", r"(notebooks/\1.md)", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./src/[\w/.-]+\)", r"\1", markdown)
    return formulas(markdown)


def page_of(path: Path) -> str:
    """A notebook as Markdown: texts, code, and what the code gave."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_open_details(source))
        else:
            parts.append(f"```python\n{source}\n```")
            parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join(data["image/png"]).strip()
        return f'<img alt="What the code above draws" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        one_line = " ".join(table.split()).replace(' border="1" class="dataframe"', "")
        return f'<div markdown="0">{one_line}</div>'
    text = output["text"] if output["output_type"] == "stream" else data.get("text/plain", "")
    return f"```text\n{''.join(text).rstrip()}\n```"


def _open_details(text: str) -> str:
    """What stands in <details> is Markdown too."""
    return text.replace("<details>", '<details markdown="1">')


def formulas(text: str) -> str:
    """$...$ and $$...$$ outside code as MathML, which browsers draw by themselves."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group(0))
        return f"\0{len(kept) - 1}\0"

    def math(match: re.Match[str]) -> str:
        block, inline = match.groups()
        made = convert(" ".join((block or inline).split()), display="block" if block else "inline")
        made = re.sub(r"[\r\n]+", " ", made)
        # Not bare: a line that begins with <math> would be taken for a block of its own.
        return f"\n\n<div>{made}</div>\n\n" if block else f"<span>{made}</span>"

    out = _MATH.sub(math, _FENCE.sub(keep, text))
    return re.sub(r"\0(\d+)\0", lambda m: kept[int(m.group(1))], out)
