"""`tunelab predict`: texts or a file in, labels out."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.flags import FlagCommand, text_file_flags, text_file_keys
from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, json_text, moved_option, trust_option
from tunelab.cli.streams import echo
from tunelab.core.artifact import refuse_several_labels
from tunelab.core.cells import six_digits
from tunelab.core.errors import InputError
from tunelab.core.words import agreeing, counted, free_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunelab.data.texts import TextTable
    from tunelab.models.explained import WordMoved
    from tunelab.models.familiar import Familiar
    from tunelab.models.text_classifier import TextClassifier

__all__ = [
    "predict",
]


# Lines of standard input, or texts, that are labelled and said at a time.
_LINES_AT_A_TIME = 4096
_FAR_LABEL = "other"  # what a text is called that reads like none of the training texts


# --- predict --------------------------------------------------------------------------------


@click.command(cls=FlagCommand, short_help="Label texts with a trained classifier.")
@click.argument("artifact", type=FOLDER, metavar="FOLDER")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", type=FOLDER, help="Texts: CSV, TSV, JSON, Parquet, .txt.")
@click.option(
    "--output-file",
    type=FOLDER,
    help="Write the file's rows with label and probability added (with --json: of every class).",
)
@text_file_flags()
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON lines with every class's probability; in an output file, a column for each class.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What layers compute in. float32: exact; auto: float32 to five digits, faster where the "
    "processor has matrix tiles; bfloat16: faster still, and rounds.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Probabilities as scores give them, without the temperature fitted on validation.",
)
@click.option(
    "--abstain",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Leave texts unlabelled of which it is too little sure, so that at most this share of all "
    "gets a wrong label (0.05).",
)
@click.option(
    "--other",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Label texts 'other' that read like none of the training texts: of texts like those at "
    "most this share (0.05). The data are read again.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="The words that moved each label: what leaving one out takes from its log odds.",
)
@click.option(
    "--calibrated", is_flag=True, help="Refuse a classifier for which no temperature was fitted."
)
@moved_option
@trust_option
def predict(artifact: Path, texts: tuple[str, ...], **given: Any) -> None:
    """Label texts with a trained classifier: a folder from `train`, a trial, or a study (its best).

    Probabilities are those at the temperature that was fitted on validation, where there is one;
    labels are the same without. A text of "-" reads lines from standard input. A file may be of any
    size: it is checked from end to end first, then labelled some thousand rows at a time.
    """
    file, output, as_json = given["file"], given["output_file"], given["as_json"]
    _refuse_contradictions(texts, given)
    reading, source = text_file_keys(given), None
    if file is not None:
        from tunelab import data

        _check_output(file, output)
        source = data.open_texts(file, **reading)
    classifier = _loaded(artifact, given)
    for note in (*(source.notes if source else ()), *classifier.notes):
        say_sentences(note, err=True)
    for flag in ("explain", "abstain", "other"):
        if given[flag] not in (None, False):
            refuse_several_labels(classifier.artifact, f"--{flag}")
    labelling = _Labelling(classifier, bool(given["explain"]), given["abstain"])
    if given["other"] is not None:
        from tunelab import classifiers

        labelling.familiar, rates = classifiers.familiarity(artifact, given["other"])
        labelling.other_error, labelling.rates = given["other"], rates.sentence
    if source is not None and output is not None:
        from tunelab.data import write

        write.write_windows(
            output,
            (_with_predictions(window, as_json, labelling) for window in source.windows()),
            lambda: (
                _without_predictions(window, as_json, labelling) for window in source.windows()
            ),
        )
        say_sentences(f"Labelled {counted(source.rows, 'text')} into {output}.", err=True)
    elif source is not None:
        for window in source.windows():
            named = as_json or given["id_column"] is not None
            _say_labels(window.texts, window.ids if named else None, labelling, as_json)
    else:
        lines = _lines_in(reading["encoding"]) if texts == ("-",) else iter(texts)
        for some in iter(lambda: list(itertools.islice(lines, _LINES_AT_A_TIME)), []):
            _say_labels(some, None, labelling, as_json)
    labelling.say_what_was_seen()


def _check_output(file: Path, output: Path | None) -> None:
    """Raise InputError where the output cannot be written, or is the file of texts itself."""
    from tunelab.data import write

    if output is None:
        return
    write.check_writable(output)
    if output.exists() and file.exists() and output.samefile(file):
        raise InputError(
            f"--output-file {output}: is the file of texts itself, which would be lost. "
            "Choose another."
        )


def _refuse_contradictions(texts: Sequence[str], given: Mapping[str, object]) -> None:
    """Raise InputError where what was given does not fit together."""
    file = given["file"]
    if file is None and not texts:
        raise InputError('No texts: give some, or --file. For example: tunelab predict out "good"')
    if file is not None and texts:
        raise InputError("Texts given twice: as arguments and as --file. Give one of them.")
    if given["output_file"] is not None and file is None:
        raise InputError("--output-file goes with --file: it is that file with labels added.")
    if given["id_column"] is not None and file is None:
        raise InputError("--id-column goes with --file: it names one of its columns.")
    if given["raw"] and given["abstain"] is not None:
        raise InputError(
            "--abstain and --raw contradict each other: when it abstains was found for "
            "probabilities at the temperature. Leave --raw out."
        )
    if given["raw"] and given["calibrated"]:
        raise InputError("--raw and --calibrated contradict each other. Give one of them.")


def _loaded(artifact: Path, given: Mapping[str, object]) -> TextClassifier:
    """The classifier, with the probabilities and the precision that were asked for."""
    from tunelab import classifiers

    model = given["model"]
    loaded = classifiers.load_to_predict(
        artifact,
        model=None if model is None else str(model),
        trust_remote_code=bool(given["trust_remote_code"]),
    )
    if given["calibrated"]:
        loaded = loaded.calibrated()
    if given["raw"]:
        loaded = loaded.raw()
    return loaded.computing_in(str(given["precision"]))


@dataclass(slots=True)
class _Labelling:
    """Labels texts, and counts what is to be said of all at the end: those without words, those
    cut.
    """

    classifier: TextClassifier
    explains: bool = False
    error: float | None = None
    familiar: Familiar | None = None
    other_error: float = 0.0
    rates: str = ""
    texts: int = 0
    unanswered: int = 0
    others: int = 0
    blank: int = 0
    cut: int = 0

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `probabilities`."""
        return self.classifier.label_names

    @property
    def thresholds(self) -> NDArray[np.float64] | None:
        """From which probability on a text has each label; None: it has one class."""
        return self.classifier.label_thresholds

    def probabilities(self, texts: list[str]) -> NDArray[np.float64]:
        """Probabilities (n, n_classes) of some more texts."""
        probabilities, cut = self.classifier.predict_proba_and_cut(texts)
        self.texts += len(texts)
        self.blank += sum(not text.strip() for text in texts)
        self.cut += cut
        return probabilities

    def words(self, texts: list[str]) -> list[tuple[WordMoved, ...]]:
        """What moved the label of each text; nothing where that was not asked."""
        if not self.explains:
            return [() for _ in texts]
        return [e.words for e in self.classifier.explain(texts)]

    def moved_by(
        self, texts: list[str], words: list[tuple[WordMoved, ...]] | None = None
    ) -> list[str] | None:
        """The same as people read it; None where that was not asked. `words` where known."""
        if not self.explains:
            return None
        from tunelab.models.explained import moved_in_words

        pairs = zip(texts, words or self.words(texts), strict=True)
        return [moved_in_words(text, own) for text, own in pairs]

    def labels(self, texts: list[str], rows: NDArray[np.float64]) -> list[str | None]:
        """What some more texts are called; None where it had better not answer."""
        names = self.classifier.label_names
        labels: list[str | None] = [names[k] for k in rows.argmax(axis=1)]
        if self.error is not None:
            sure = self.classifier.answers(rows, self.error)
            labels = [x if yes else None for x, yes in zip(labels, sure, strict=True)]
        if self.familiar is not None:
            other = free_name(_FAR_LABEL, names)
            far = self.familiar.others(texts, self.other_error)
            labels = [other if yes else x for x, yes in zip(labels, far, strict=True)]
            self.others += int(far.sum())
        self.unanswered += labels.count(None)
        return labels

    def say_what_was_seen(self) -> None:
        """Blank texts keep their place and get a label too; of long ones a part was read."""
        if self.error is not None:
            say_sentences(
                f"{self.unanswered:,} of {counted(self.texts, 'text')} got no label, so that at "
                f"most {100 * self.error:g}% of all texts like the validation rows get a wrong "
                "one.",
                err=True,
            )
        if self.familiar is not None:
            say_sentences(
                f"{self.others:,} of {counted(self.texts, 'text')} "
                f"{agreeing(self.others, 'read')} like none of the training texts. {self.rates}",
                err=True,
            )
        if self.blank:
            many = "texts are blank: their labels mean"
            one = "text is blank: its label means"
            say_sentences(f"{self.blank:,} {many if self.blank > 1 else one} nothing.", err=True)
        if self.cut:
            are = "is" if self.cut == 1 else "are"
            say_sentences(
                f"{self.cut:,} of {counted(self.texts, 'text')} {are} longer than the "
                f"{self.classifier.max_length:,} tokens that this classifier reads: what follows "
                "was not read.",
                err=True,
            )


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


def _say_labels(
    texts: list[str], ids: Sequence[object] | None, labelling: _Labelling, as_json: bool
) -> None:
    """A line for each text: label, probability and text, or JSON with all probabilities; before
    them the row's id, where `ids` has it.
    """
    names, several = labelling.label_names, labelling.thresholds
    rows = labelling.probabilities(texts)
    if several is not None:
        for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
            named = "" if ids is None else ids[i]
            echo(_line_of_several(text, row, names, several, as_json=as_json, of_row=named))
        return
    moved = labelling.words(texts)
    why, labels = labelling.moved_by(texts, moved), labelling.labels(texts, rows)
    for i, (text, row, words) in enumerate(zip(texts, rows, moved, strict=True)):
        if as_json:
            each = {n: six_digits(v) for n, v in zip(names, row, strict=True)}
            named = {} if ids is None else {"id": ids[i]}
            said = {**named, "text": text, "label": labels[i], "probabilities": each}
            if labelling.explains:
                said["words"] = [{"word": text[w.start : w.stop], **asdict(w)} for w in words]
            echo(json_text(said, default=str))
        else:
            label, plain = (" ".join(x.split()) for x in (labels[i] or "", text))
            name = "" if ids is None else f"{' '.join(str(ids[i]).split())}\t"
            because = "" if why is None else f"\t{why[i]}"
            echo(f"{name}{label}\t{six_digits(row.max()):.3f}\t{plain}{because}")


def _line_of_several(
    text: str,
    row: NDArray[np.float64],
    names: Sequence[str],
    thresholds: NDArray[np.float64],
    *,
    as_json: bool,
    of_row: object,
) -> str:
    """All labels of a text from their thresholds on, the most probable first, with their
    probabilities; - where it has none.
    """
    chosen = sorted((k for k in range(len(row)) if row[k] >= thresholds[k]), key=lambda k: -row[k])
    if as_json:
        each = {n: six_digits(v) for n, v in zip(names, row, strict=True)}
        labels = [names[k] for k in chosen]
        named = {} if of_row == "" else {"id": of_row}
        said = {**named, "text": text, "labels": labels, "probabilities": each}
        return json_text(said, default=str)
    shown = "|".join(" ".join(names[k].split()) for k in chosen) or "-"
    sure = "|".join(f"{six_digits(row[k]):.3f}" for k in chosen) or "-"
    first = "" if of_row == "" else f"{' '.join(str(of_row).split())}\t"
    return f"{first}{shown}\t{sure}\t{' '.join(text.split())}"


def _with_predictions(
    window: TextTable, every_class: bool, labelling: _Labelling
) -> dict[str, list[Any]]:
    """A window's columns with label and probability added, and with that of `every_class`."""
    from tunelab.data.labelled import labelled_columns

    probabilities = labelling.probabilities(window.texts)
    names = labelling.label_names
    moved = labelling.moved_by(window.texts)
    return labelled_columns(
        window.columns,
        names,
        probabilities,
        every_class=every_class,
        thresholds=labelling.thresholds,
        moved_by=moved,
        labels=labelling.labels(window.texts, probabilities),
    )


def _without_predictions(
    window: TextTable, every_class: bool, labelling: _Labelling
) -> dict[str, list[Any]]:
    """Columns of the same names and types, of which nothing is computed."""
    from tunelab.data.labelled import labelled_columns

    moved = [""] * len(window.texts) if labelling.explains else None
    return labelled_columns(
        window.columns,
        labelling.label_names,
        None,
        every_class=every_class,
        thresholds=labelling.thresholds,
        moved_by=moved,
    )
