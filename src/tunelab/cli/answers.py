"""Verbs that ask a finished study: recommend, sensitivity, rank.

Only click is imported here; a verb imports what it needs.
"""

from __future__ import annotations

from pathlib import Path

import click

from tunelab.cli.options import FOLDER, json_option, print_json
from tunelab.cli.show import show_answer
from tunelab.core.errors import InputError

__all__ = [
    "COMMANDS",
]


@click.command(short_help="Which method to take where a small loss is acceptable, and why.")
@click.argument("study", type=FOLDER)
@click.option(
    "--margin",
    type=float,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Acceptable loss, in points of the metric.",
)
@click.option(
    "--cost",
    default="train_seconds",
    show_default=True,
    metavar="NAME",
    help="What is to be small: train_seconds, artifact_bytes, latency_p50_seconds, ...",
)
@click.option("--metric", metavar="NAME", help="Judge by another metric.")
@json_option
def recommend_command(
    study: Path, margin: float, cost: str, metric: str | None, as_json: bool
) -> None:
    """The cheapest method shown to lose little against the best, and the Pareto front."""
    from tunelab import analysis
    from tunelab.analysis import front as fronts
    from tunelab.analysis import tradeoff
    from tunelab.analysis.costs import check_cost
    from tunelab.analysis.front import front_for_display
    from tunelab.cli import terminal
    from tunelab.core import study_folder
    from tunelab.study import resolve

    record = study_folder.read_study(study)
    if metric is not None:
        resolve.require_metric(metric)
    check_cost(cost)
    if not 0 < margin < 100:
        raise InputError(
            f"--margin {margin:g}: expected points above 0 and below 100, such as 1 or 0.5."
        )
    said = analysis.summarise(record, metric)
    advice = tradeoff.recommend(record, margin=margin / 100, cost=cost, summary=said)
    front = fronts.front(record, cost, said)
    if as_json:
        both = {
            "recommendation": tradeoff.recommendation_to_json(advice),
            "front": tradeoff.recommendation_to_json(front),
        }
        print_json(both)
        return
    show_answer(advice.answer)
    out = terminal.console()
    terminal.say(out, advice.sentence + ".", indent=2)
    for line in (*advice.reasons, *advice.conditions):
        terminal.say(out, f"- {line}", indent=2)
    out.print()
    terminal.print_table(*front_for_display(front), "Score against cost")
    for line in front.sentences:
        terminal.say(out, line + ".", indent=2)


@click.command(short_help="What each setting that varies does to a metric or a cost.")
@click.argument("study", type=FOLDER)
@click.option("--of", metavar="NAME", help="A metric, a score (eval_accuracy) or a cost.")
@json_option
def sensitivity(study: Path, of: str | None, as_json: bool) -> None:
    """Main effects and interactions of the settings that vary among a study's trials."""
    from dataclasses import asdict

    from tunelab.analysis.sensitivity import analyse, sensitivity_for_display
    from tunelab.cli import terminal
    from tunelab.core import study_folder

    analyses = analyse(study_folder.read_study(study), of)
    if as_json:
        print_json([asdict(s) for s in analyses])
        return
    if not analyses:
        raise InputError(
            f"{study}: no method has settings that vary, so there is nothing to compare. "
            "Give a list, such as r: [4, 8, 16], in the study file."
        )
    out = terminal.console()
    for s in analyses:
        terminal.print_table(*sensitivity_for_display(s), f"{s.method}: {s.procedure}")
        for line in (*s.sentences, *s.notes):
            terminal.say(out, line + ".", indent=2)
        out.print()


@click.command(short_help="Average ranks of methods over several data sets.")
@click.argument("studies", type=FOLDER, nargs=-1, required=True)
@click.option("--metric", metavar="NAME", help="Rank by another metric.")
@json_option
def rank(studies: tuple[Path, ...], metric: str | None, as_json: bool) -> None:
    """Rank the methods that all STUDIES have, one study a data set (Demsar 2006)."""
    from tunelab.analysis import ranks
    from tunelab.cli import terminal
    from tunelab.core import study_folder
    from tunelab.study import resolve

    if metric is not None:
        resolve.require_metric(metric)
    ranking = ranks.rank_studies([study_folder.read_study(s) for s in studies], metric)
    if as_json:
        print_json(ranks.ranks_to_json(ranking))
        return
    terminal.print_table(*ranks.ranks_for_display(ranking))
    out = terminal.console()
    for line in ranking.sentences:
        terminal.say(out, line + ".", indent=2)
    if ranking.critical_difference is not None:
        gap = f"Nemenyi: ranks {ranking.critical_difference:.2f} apart differ, over all pairs."
        terminal.say(out, gap, indent=2)


COMMANDS = (recommend_command, sensitivity, rank)
