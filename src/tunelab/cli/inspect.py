"""`tunelab inspect`: data and models, looked at before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.flags import FlagCommand, data_flags, take_study_keys
from tunelab.cli.lines import say_sentences
from tunelab.cli.options import json_option, print_json
from tunelab.cli.streams import echo

if TYPE_CHECKING:
    from tunelab.core.values import DataSpec

__all__ = [
    "inspect_group",
]

_EXAMPLES_SHOWN = {"label-errors": 10}  # examples of a finding: a ranked list is to be read
SAMPLE = "It's not the uninspired mess I'd feared: a quiet, wonderful film."


# --- inspect --------------------------------------------------------------------------------


@click.group(short_help="Look at data or a model before training.")
def inspect_group() -> None:
    """Look at data or a model before training."""


def _tokens_or_auto(_: click.Context, __: click.Parameter, value: str) -> int | str:
    """A number of tokens from 4 on, or "auto"."""
    if value == "auto":
        return value
    if not value.isdigit() or int(value) < 4:
        raise click.BadParameter(f"expected auto or a whole number from 4, found {value!r}.")
    return int(value)


@inspect_group.command(
    "data",
    cls=FlagCommand,
    short_help="Sizes, lengths, samples; duplicates, leaks and other faults.",
)
@click.argument("source", metavar="DATA")
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    metavar="MODEL",
    help="Whose tokens are counted.",
)
@click.option(
    "--max-length",
    default="auto",
    show_default=True,
    metavar="N|auto",
    callback=_tokens_or_auto,
    help="Which texts would be cut; auto: as `compare` cuts by itself.",
)
@click.option(
    "--test-on",
    "others",
    multiple=True,
    metavar="DATA",
    help="Look for these data's rows among the training rows too.",
)
@data_flags
@json_option
def inspect_data(
    source: str,
    model: str,
    max_length: int | str,
    others: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Sizes, label balance, lengths in words and tokens, samples of each label; and the data gate:
    leaks and near duplicates, conflicting and doubtful labels, columns, words, marks, ids and
    an order of rows that give the label away, imbalance, HTML, wrong encodings, other languages,
    odd lengths.
    """
    from dataclasses import asdict

    from tunelab import data
    from tunelab.cli.terminal import print_data_card
    from tunelab.data.gate import leaks, values
    from tunelab.models import bases, lengths, tokens

    base = bases.resolve(model)
    dataset = data.load(_data_spec(source, **given))
    facts = data.describe(dataset)
    limit = lengths.limit_of(max_length, base, dataset.train.texts)
    token_lengths = tokens.token_lengths(dataset, base, limit)
    gate = data.inspect(dataset)
    across = [f for o in others for f in leaks.against(dataset, data.load(_data_spec(o)))]
    if as_json:
        said = {"gate": values.gate_to_json(gate), "test_on": [asdict(f) for f in across]}
        print_json({**facts, "tokens": token_lengths, **said})
        return
    print_data_card(facts, token_lengths)
    echo("\nData gate")
    for line in (*values.lines(gate), *(values.line(f) for f in across), *gate.notes):
        say_sentences(f"  {line}")
    for finding in (f for f in (*gate.findings, *across) if f.examples):
        say_sentences(f"\n{finding.check} ({finding.where}), for example:")
        for example in finding.examples[: _EXAMPLES_SHOWN.get(finding.check, 3)]:
            if example.note:
                say_sentences(f"  {example.note}")
            for row in example.rows:
                say_sentences(f"    {row.part} {row.id} [{row.label}] {' '.join(row.text.split())}")


def _data_spec(source: str, **given: Any) -> DataSpec:
    from tunelab.core.values import DataSpec

    keys = {k.removeprefix("data."): v for k, v in take_study_keys(given)[0].items()}
    return DataSpec(source, **{k: v for k, v in keys.items() if v is not None})  # type: ignore[arg-type]


@inspect_group.command(
    "model", short_help="Parts, tokens, shapes, LoRA targets, trainable parameters."
)
@click.argument("name", default="minilm", metavar="[MODEL]")
@click.option("--text", default=SAMPLE, help="Text to tokenize.")
@json_option
def inspect_model(name: str, text: str, as_json: bool) -> None:
    """Architecture, parameters, tokens of a text, shapes, LoRA targets, what each method trains."""
    from tunelab.cli.terminal import model_card
    from tunelab.methods import inspection

    facts = inspection.inspect_base(name, text)
    if as_json:
        print_json(facts)
    else:
        model_card(facts)
