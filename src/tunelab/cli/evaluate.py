"""`tunelab evaluate`: saved classifiers on the same labelled rows, each pair tested exactly.

Only click is imported here; the verb imports what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunelab.cli.flags import FlagCommand, study_flags, take_study_keys
from tunelab.cli.options import FOLDER, json_option, moved_option, print_json, trust_option
from tunelab.core.data_keys import DATA_FLAGS

__all__ = [
    "evaluate_command",
]

# Of what says how data is read, all but what is of a study's own rows, and names of rows.
_OF_A_STUDY = ("id_column", "subset", "on_leak", "corrections")
_READING = tuple(key for key in DATA_FLAGS if key not in _OF_A_STUDY)


@click.command(
    cls=FlagCommand, short_help="Score saved classifiers on labelled texts; test pairs exactly."
)
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option(
    "--data", "source", required=True, metavar="DATA", help="File, folder, hub id or demo."
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Score this part alone (else every labelled row); parts that are missing are split off.",
)
@study_flags(*_READING)
@moved_option
@trust_option
@json_option
def evaluate_command(
    artifacts: tuple[Path, ...],
    *,
    source: str,
    trust_remote_code: bool | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Score one or more saved classifiers on the same rows; McNemar's exact test for each pair.

    FOLDER is one from `train`, a trial's, or a study's (its best model), as for `predict`. Every
    labelled row is scored; --part names one part of the data. Below the scores stand those of each
    class, and which classes are taken for which. The models are fixed here: the test says whether
    these very classifiers differ on rows like these, not whether training again would find the
    same. Holm's correction over all pairs.
    """
    from tunelab.cli import terminal
    from tunelab.evaluation import evaluate

    keys, _ = take_study_keys({k: given.pop(k) for k in _READING})
    reading = {k.removeprefix("data."): v for k, v in keys.items() if v is not None}
    evaluation = evaluate(
        artifacts,
        source,
        trust_remote_code=bool(trust_remote_code),
        **given,
        **reading,  # type: ignore[arg-type]
    )
    if as_json:
        print_json(evaluation.to_json())
        return
    for table in (evaluation.for_display(), *evaluation.classes_for_display()):
        terminal.print_table(*table)
    out = terminal.console()
    for line in evaluation.sentences():
        terminal.say(out, f"{line.removesuffix('.')}.", indent=2)
