"""`tunelab adapters`: list, show, verify, merge and combine saved adapters.

Only click is imported here; a verb imports what it needs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelab.cli.flags import FlagCommand, text_file_flags, text_file_keys
from tunelab.cli.lines import say_sentences
from tunelab.cli.options import FOLDER, json_option, moved_option, print_json, trust_option
from tunelab.cli.streams import echo
from tunelab.core.errors import InputError
from tunelab.core.words import as_one

if TYPE_CHECKING:
    from tunelab.exporting.merging import Made

__all__ = [
    "adapters",
]


_output_option = click.option(
    "--output-dir", type=FOLDER, required=True, help="A new folder for what is made."
)


@click.group(short_help="List, show, verify, merge and combine saved adapters.")
def adapters() -> None:
    """List, show, verify, merge and combine saved adapters. The originals are never changed.

    A study's folder stands for its best model, as it does for `tunelab predict`.
    """


@adapters.command("list", short_help="Classifiers below a folder, with their kind and size.")
@click.argument("root", type=FOLDER, default=Path())
@json_option
def list_artifacts(root: Path, as_json: bool) -> None:
    """Classifiers below a folder (this one), those of studies' trials too.

    A trial's folder stands for the classifier in it, as it does for every other verb.
    """
    from tunelab.exporting import find_artifacts

    rows = find_artifacts(root)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say_sentences(
            f"No classifiers below {root}. Make one: tunelab train DATA --method lora ..."
        )
        return
    from tunelab.analysis.numbers import format_bytes
    from tunelab.cli.terminal import print_table

    print_table(
        ["Folder", "Kind", "Method", "Base", "Labels", "Size"],
        [
            [
                r["folder"].removesuffix("/artifact"),
                r["kind"] or "unreadable",
                r["method"] or "-",
                r["base"] or "-",
                str(len(r["label_names"])) if r["label_names"] else "-",
                format_bytes(r["bytes"]),
            ]
            for r in rows
        ],
        all_of_it="--json has all.",
    )
    for row in rows:
        if row["error"]:
            say_sentences(str(row["error"]), err=True)


@adapters.command(short_help="Method, settings, base, labels, sizes of one.")
@click.argument("folder", type=FOLDER)
@json_option
def show_command(folder: Path, as_json: bool) -> None:
    """Kind, method and settings, base, labels, and sizes: adapter and head apart."""
    from tunelab import api, exporting
    from tunelab.analysis.numbers import format_bytes

    facts = exporting.show(api.classifier_folder(folder))
    if as_json:
        print_json(facts)
        return
    base, method, made = facts["base"], facts["method"], facts["made_from"]
    settings = ", ".join(f"{k}={_plain_numbers(v)}" for k, v in method["settings"].items())
    lines = {
        "Folder": facts["folder"],
        "Kind": facts["kind"],
        "Method": method["name"] or "unknown: neither a trial nor peft says",
        "Settings": settings or None,
        "Seed": method["seed"],
        "Base": f"{base['name']} (SHA-256 {base['sha256']})" if base else "none",
        "Labels": ", ".join(map(as_one, facts["label_names"])),
        "Cut at": f"{facts['max_length']} tokens" if facts["max_length"] else None,
        "Made from": json.dumps(made, ensure_ascii=False) if made else None,
        **{f"Size, {k}": format_bytes(v) for k, v in facts["bytes"].items()},
        "Files": ", ".join(f"{k} ({format_bytes(v)})" for k, v in facts["files"].items()),
    }
    _print_lines([(k, v) for k, v in lines.items() if v is not None])
    _print_lines([("Note", n) for n in facts["notes"]])


@adapters.command(short_help="Check files, tensors and base; a fault is exit code 2.")
@click.argument("folder", type=FOLDER)
@moved_option
@trust_option
@json_option
def verify_command(
    folder: Path, model: str | None, trust_remote_code: bool | None, as_json: bool
) -> None:
    """Check files, tensors and base; a fault is named, and the exit code is then 2."""
    from tunelab import api, exporting

    folder = api.classifier_folder(folder)
    checks = exporting.verify(folder, trust_remote_code=bool(trust_remote_code), model=model)
    if as_json:
        print_json([{"name": c.name, "status": c.status, "detail": c.detail} for c in checks])
    else:
        for c in checks:
            say_sentences(f"{c.status:<8} {c.name}: {c.detail}", indent=9)
    faults = [c.name for c in checks if c.status == "fault"]
    if faults:
        raise InputError(
            f"{folder}: not sound: {', '.join(faults)}. Copy it again from where it was made."
        )


@adapters.command(cls=FlagCommand, short_help="Adapter and base as one plain model.")
@click.argument("folder", type=FOLDER)
@_output_option
@click.option("--file", type=FOLDER, help="Texts to compare on (else reviews that come along).")
@text_file_flags("text_column", "encoding", "quoting")
@click.option("--allow-changes", is_flag=True, help="Write it even where predictions change.")
@moved_option
@trust_option
@json_option
def merge_command(folder: Path, output_dir: Path, as_json: bool, **given: Any) -> None:
    """Write an adapter and its base as one plain model, if predictions stay as they are."""
    from tunelab import api, data, exporting

    texts = None
    if given["file"] is not None:
        texts = data.read_texts(given["file"], **text_file_keys(given)).texts
    merged = exporting.merge(
        api.classifier_folder(folder),
        output_dir,
        texts,
        allow_changes=given["allow_changes"],
        trust_remote_code=bool(given["trust_remote_code"]),
        model=given["model"],
    )
    _say_made(merged, "Merged", as_json)


@adapters.command(short_help="One adapter from several on one base.")
@click.argument("parts", nargs=-1, required=True, metavar="FOLDER[=WEIGHT]...")
@_output_option
@click.option(
    "--type",
    "combination_type",
    default="linear",
    show_default=True,
    metavar="NAME",
    help="linear, ties, dare_ties, svd or cat.",
)
@click.option("--density", type=float, metavar="SHARE", help="Share kept by ties and dare_ties.")
@moved_option
@trust_option
@json_option
def combine_command(
    parts: tuple[str, ...],
    *,
    output_dir: Path,
    combination_type: str,
    density: float | None,
    model: str | None,
    trust_remote_code: bool | None,
    as_json: bool,
) -> None:
    """Write one LoRA adapter from several on one base: `combine a=0.7 b=0.3` (weight 1)."""
    from tunelab import api, exporting

    weighted = [(api.classifier_folder(f), w) for f, w in map(_weighted, parts)]
    combined = exporting.combine(
        weighted,
        output_dir,
        combination_type,
        density,
        trust_remote_code=bool(trust_remote_code),
        model=model,
    )
    _say_made(combined, "Combined", as_json)


def _weighted(part: str) -> tuple[Path, float]:
    """The folder and the weight of "folder=0.7"; a folder whose name has a = in it is a folder."""
    folder, equals, weight = part.rpartition("=")
    if not equals or Path(part).is_dir():
        return Path(part), 1.0
    try:
        return Path(folder), float(weight)
    except ValueError:
        raise InputError(
            f"{part}: expected FOLDER=WEIGHT with a number, found {weight!r}. "
            f"For example: {folder}=0.5"
        ) from None


def _say_made(made: Made, what: str, as_json: bool) -> None:
    out = made.artifact.directory
    if as_json:
        print_json(
            {
                "folder": str(out),
                "texts": made.change.texts,
                "flips": made.change.flips,
                "largest_change": made.change.largest,
                "notes": list(made.notes),
            }
        )
        return
    for note in made.notes:
        say_sentences(note, err=True)
    # A combination need not be as anything before: its notes compare it with its parts.
    changed = f": {made.change.sentence}" if what == "Merged" else ""
    say_sentences(f"{what} into {out}{changed}.")
    echo(f'Try it: tunelab predict {shlex.quote(str(out))} "your text"')


def _print_lines(pairs: Sequence[tuple[str, object]]) -> None:
    width = max((len(k) for k, _ in pairs), default=0)
    for key, value in pairs:
        say_sentences(f"{key:<{width}}  {value}", indent=width + 2)


def _plain_numbers(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
