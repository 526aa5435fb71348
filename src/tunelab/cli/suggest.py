"""`tunelab suggest`: which texts to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunelab.cli.flags import FlagCommand, text_file_flags, text_file_keys
from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, json_text, trust_option
from tunelab.cli.streams import echo
from tunelab.core.words import counted

__all__ = ["suggest_command"]


@click.command("suggest", cls=FlagCommand, short_help="Which texts to label next.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option(
    "--from",
    "file",
    type=FOLDER,
    required=True,
    metavar="FILE",
    help="Texts without labels: CSV, TSV, JSON, Parquet, .txt.",
)
@click.option("--n", "count", type=click.IntRange(1), default=100, show_default=True, metavar="N")
@click.option(
    "--output-file", type=FOLDER, help="Write the rows here: .csv, .tsv, .jsonl, .parquet."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@text_file_flags()
@trust_option
def suggest_command(
    folder: Path,
    *,
    file: Path,
    count: int,
    output_file: Path | None,
    as_json: bool,
    trust_remote_code: bool,
    **given: Any,
) -> None:
    """Choose the texts whose labels would tell a study's methods most: those of which they are
    least sure, none like another nor like a labelled row. A line each: label so far, probability,
    uncertainty (0 to 1), text. What as many more rows would bring is said by the learning curve.
    """
    from tunelab import data, suggesting
    from tunelab.cli.compare import stderr_console
    from tunelab.data import write

    reading = text_file_keys(given)
    if output_file is not None:
        write.check_writable(output_file)
    with stderr_console().status("reading") as status:
        said = suggesting.suggest(
            folder,
            file,
            count,
            **reading,
            trust_remote_code=bool(trust_remote_code),
            on_event=status.update,
        )
    if output_file is not None:
        data.write_table(output_file, said.columns)
        wrote = f"{counted(len(said.rows), 'text')} of {said.of:,} written to {output_file}."
        say_sentences(f"{wrote} Label them, and add them to the training data.", err=True)
    else:
        for r in said.rows:
            named = {} if r.id is None else {"id": r.id}
            if as_json:
                told = {"text": r.text, "label": r.label, "probability": round(r.probability, 6)}
                doubt = {"uncertainty": r.uncertainty, "disagreement": r.disagreement}
                echo(json_text({**named, **told, **{k: round(v, 6) for k, v in doubt.items()}}))
            else:
                label, text = (" ".join(x.split()) for x in (r.label, r.text))
                name = "" if r.id is None else f"{r.id}\t"
                echo(f"{name}{label}\t{r.probability:.3f}\t{r.uncertainty:.3f}\t{text}")
    for note in said.notes:
        say_sentences(f"{note[:1].upper()}{note[1:]}.", err=True)
    say_sentences(said.outlook, err=True)
