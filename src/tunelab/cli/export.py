"""`tunelab export`: a classifier in another form, refused unless its predictions hold.

Only click is imported here; the verb imports what it needs.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.flags import FlagCommand, text_file_flags, text_file_keys
from tunelab.cli.options import FOLDER, json_option, moved_option, print_json, trust_option
from tunelab.cli.streams import echo

if TYPE_CHECKING:
    from tunelab.exporting import Exported

__all__ = [
    "export_command",
]

_SHOWN = 10


@click.command(
    cls=FlagCommand, short_help="A classifier as merged model, ONNX or int8, if predictions hold."
)
@click.argument("folder", type=FOLDER)
@click.option(
    "--to", required=True, metavar="FORM", help="merged, onnx, int8, openvino or openvino-int8."
)
@click.option("--output-dir", type=FOLDER, required=True, help="A new folder for what is made.")
@click.option("--file", type=FOLDER, help="More texts to compare on, beside the validation part.")
@text_file_flags("text_column", "encoding", "quoting")
@click.option(
    "--allow", is_flag=True, help="Write it even where predictions do not hold; it then says so."
)
@click.option(
    "--keep-texts", is_flag=True, help="Keep the texts whose label changes in its tunelab.json."
)
@moved_option
@trust_option
@json_option
def export_command(folder: Path, to: str, output_dir: Path, *, as_json: bool, **given: Any) -> None:
    """Write a classifier in another form: FOLDER is one from `train`, a trial's, or a study's.

    What is written is read in a fresh process and compared with the original on its validation
    part. float32 forms: no label may change, no probability by more than 1e-4. int8: at most 1% of
    labels, by the upper 95% bound, and accuracy not shown to be worse.
    """
    from tunelab import data, exports

    texts = None
    if given["file"] is not None:
        texts = data.read_texts(given["file"], **text_file_keys(given)).texts
    made = exports.export(
        folder,
        to,
        output_dir,
        texts=texts,
        allow=given["allow"],
        keep_texts=given["keep_texts"],
        model=given["model"],
        trust_remote_code=bool(given["trust_remote_code"]),
        on_note=lambda line: echo(line, err=True),
    )
    if as_json:
        print_json(
            {
                "folder": str(made.artifact.directory),
                **made.artifact.manifest.get("exported_from", {}),
                "changed_texts": made.agreement.changed_texts(),
            }
        )
        return
    _say_exported(made)


def _say_exported(made: Exported) -> None:
    from tunelab.core.words import short

    for text in made.agreement.changed[:_SHOWN]:
        truth = "" if text.truth is None else f" (true: {text.truth})"
        line = " ".join(short(text.text, 80).split())
        echo(f"{text.before} -> {text.after}{truth}: {line}")
    if len(made.agreement.changed) > _SHOWN:
        echo(f"... and {len(made.agreement.changed) - _SHOWN} more: --json prints all of them.")
    if made.fault is not None:
        echo(f"Its predictions do not hold: {made.fault}. Allowed by --allow.", err=True)
    out = made.artifact.directory
    echo(f"Exported to {out}: {made.sentence}, on {made.agreement.described}.")
    echo(f'Try it: tunelab predict {shlex.quote(str(out))} "your text"')
