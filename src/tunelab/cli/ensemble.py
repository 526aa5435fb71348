"""`tunelab ensemble`: methods of a study averaged, without a training."""

from __future__ import annotations

from pathlib import Path

import click

from tunelab.cli.options import FOLDER, json_option, print_json

__all__ = [
    "ensemble_command",
]


@click.command("ensemble", short_help="Average methods of a study, against each of them.")
@click.argument("folder", type=FOLDER, metavar="STUDY")
@click.option("--methods", metavar="A,B,..", help="Members (all that give probabilities).")
@click.option("--metric", metavar="NAME", help="Metric of verdicts (the study's).")
@click.option("--output-dir", type=FOLDER, metavar="PATH", help="Write the classifier here.")
@click.option("--overwrite", is_flag=True, help="Replace a classifier that is there.")
@json_option
def ensemble_command(
    folder: Path,
    *,
    methods: str | None,
    metric: str | None,
    output_dir: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Average the probabilities of methods, with weights chosen on validation, and compare the
    mixture with each member on test. Nothing is trained: what the study keeps is read.
    """
    from tunelab import api
    from tunelab.analysis.ensembles import ensemble_to_json

    said, written = api.Study(folder).ensemble(
        methods, metric=metric, output_dir=output_dir, overwrite=overwrite
    )
    if as_json:
        where = str(written.directory) if written else None
        print_json({**ensemble_to_json(said), "output_dir": where})
        return
    from tunelab.cli.terminal import console, print_table, say

    print_table(*said.for_display())
    out = console()
    for line in said.sentences():
        say(out, line if line.endswith(".") else f"{line}.", indent=2)
    if written is not None:
        say(out, f"Classifier: {written.directory} (seed {said.chosen_seed}).", indent=2)
