"""`tunelab predict`: texts or a file in, labels out."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.options import FOLDER, trust_option
from tunelab.core.errors import InputError
from tunelab.core.words import free_name

if TYPE_CHECKING:
    from tunelab.data.texts import TextTable
    from tunelab.models.text_classifier import TextClassifier

__all__ = [
    "predict",
]


# --- predict --------------------------------------------------------------------------------


@click.command(short_help="Label texts with a trained classifier.")
@click.argument("artifact", type=FOLDER, metavar="FOLDER")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", type=FOLDER, help="Texts: CSV, TSV, JSON, Parquet, .txt.")
@click.option(
    "--output-file", type=FOLDER, help="Write the file's rows with label and probability added."
)
@click.option("--text-column", metavar="NAME", help="Column of the texts (else guessed).")
@click.option("--encoding", default="utf-8", show_default=True, metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="JSON lines with every class's probability.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What layers compute in. float32: exact; auto: float32 to five digits, faster where the "
    "processor has matrix tiles; bfloat16: faster still, and rounds.",
)
@click.option(
    "--calibrated",
    is_flag=True,
    help="Divide scores by the temperature fitted on validation: same labels, truer probabilities.",
)
@trust_option
def predict(artifact: Path, texts: tuple[str, ...], **given: Any) -> None:
    """Label texts with a trained classifier: a folder from `train`, a trial, or a study (its best).

    A text of "-" reads lines from standard input. A file may be of any size: it is checked from end
    to end first, then labelled some thousand rows at a time.
    """
    file, output, as_json = given["file"], given["output_file"], given["as_json"]
    if file is None and not texts:
        raise InputError('No texts: give some, or --file. For example: tunelab predict out "good"')
    if file is not None and texts:
        raise InputError("Texts given twice: as arguments and as --file. Give one of them.")
    if output is not None and file is None:
        raise InputError("--output-file goes with --file: it is that file with labels added.")
    from tunelab import data
    from tunelab.data import write
    from tunelab.data.texts import WINDOW_ROWS

    if output is not None:
        write.check_writable(output)
        if output.exists() and file.exists() and output.samefile(file):
            raise InputError(
                f"--output-file {output}: is the file of texts itself, which would be lost. "
                "Choose another."
            )

    source = None
    if file is not None:
        source = data.open_texts(file, given["text_column"], given["encoding"])
    loaded = _opened(artifact, bool(given["trust_remote_code"]))
    if given["calibrated"]:
        loaded = loaded.calibrated()
    classifier = loaded.computing_in(given["precision"])
    for note in classifier.notes:
        click.echo(note, err=True)
    if source is not None and output is not None:
        write.write_windows(
            output,
            (_with_predictions(window, classifier) for window in source.windows()),
            lambda: (_with_predictions(window) for window in source.windows()),
        )
        click.echo(f"Labelled {source.rows:,} texts into {output}.", err=True)
        _say_blank(source.blank)
        return
    if source is not None:
        windows: Iterator[list[str]] = (window.texts for window in source.windows())
    else:
        lines = _lines_in(given["encoding"]) if texts == ("-",) else iter(texts)
        windows = iter(lambda: list(itertools.islice(lines, WINDOW_ROWS)), [])
    blank = 0
    for some in windows:
        _say_labels(some, classifier, as_json)
        blank += sum(not text.strip() for text in some)
    _say_blank(blank)


def _opened(folder: Path, trusted: bool) -> TextClassifier:
    """As `api.load`, which is imported for a study alone: it takes as long as labelling one text by
    an exported classifier.
    """
    from tunelab.core import study_folder
    from tunelab.models.text_classifier import open_classifier

    if study_folder.is_study(folder):
        from tunelab import api

        folder = api.classifier_folder(folder)
    return open_classifier(folder, trusted)


def _lines_in(encoding: str) -> Iterator[str]:
    """Lines of standard input, decoded strictly. Raises InputError, naming the line."""
    for n, line in enumerate(getattr(sys.stdin, "buffer", sys.stdin), start=1):
        try:
            yield (line if isinstance(line, str) else line.decode(encoding)).rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(
                f"standard input: line {n} is not {encoding.upper()}. Convert it, or name its "
                "encoding, e.g. --encoding cp1252."
            ) from None
        except LookupError:
            raise InputError(
                f"no such text encoding: {encoding!r}. Common: utf-8, cp1252."
            ) from None


def _say_blank(blank: int) -> None:
    """Blank texts keep their place and get a label too, which means nothing."""
    if blank:
        many = "texts are blank: their labels mean"
        click.echo(
            f"{blank:,} {many if blank > 1 else 'text is blank: its label means'} nothing.",
            err=True,
        )


def _say_labels(texts: list[str], classifier: TextClassifier, as_json: bool) -> None:
    for text, row in zip(texts, classifier.predict_proba(texts), strict=True):
        best = int(row.argmax())
        label = classifier.label_names[best]
        if as_json:
            each = {n: round(float(v), 6) for n, v in zip(classifier.label_names, row, strict=True)}
            click.echo(
                json.dumps(
                    {"text": text, "label": label, "probabilities": each}, ensure_ascii=False
                )
            )
        else:
            said, plain = (" ".join(x.split()) for x in (label, text))
            click.echo(f"{said}\t{round(float(row[best]), 6):.3f}\t{plain}")


def _with_predictions(
    window: TextTable, classifier: TextClassifier | None = None
) -> dict[str, list[Any]]:
    """A window's columns with label and probability added; without a classifier, of their types."""
    labels, top = [""] * len(window.texts), [0.0] * len(window.texts)
    if classifier is not None:
        probabilities = classifier.predict_proba(window.texts)
        best = probabilities.argmax(axis=1)
        labels = [classifier.label_names[k] for k in best]
        top = [round(float(p[k]), 6) for p, k in zip(probabilities, best, strict=True)]
    columns = dict(window.columns)
    columns[free_name("predicted_label", columns, "{}_{}")] = labels
    columns[free_name("probability", columns, "{}_{}")] = top
    return columns
