"""`tunelab evaluate`: saved classifiers on the same labelled rows, each pair tested exactly.

Only click is imported here; the verb imports what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunelab.cli.options import FOLDER, json_option, moved_option, print_json, trust_option

__all__ = [
    "evaluate_command",
]


@click.command(short_help="Score saved classifiers on labelled texts; test pairs exactly.")
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option(
    "--data", "source", required=True, metavar="DATA", help="File, folder, hub id or demo."
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Score this part alone (else every labelled row); parts that are missing are split off.",
)
@click.option("--text-column", metavar="NAME", help="Column of the texts (else guessed).")
@click.option("--label-column", metavar="NAME", help="Column of the labels (else guessed).")
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

    evaluation = evaluate(artifacts, source, trust_remote_code=bool(trust_remote_code), **given)
    if as_json:
        print_json(evaluation.to_json())
        return
    for table in (evaluation.for_display(), *evaluation.classes_for_display()):
        terminal.print_table(*table)
    out = terminal.console()
    for line in evaluation.sentences():
        terminal.say(out, f"{line}.", indent=2)
