"""A new study from the page: a file looked at, what would run, and the command that runs it."""

from __future__ import annotations

import filecmp
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunelab import data, study
from tunelab.core import files
from tunelab.core.errors import DataError
from tunelab.core.values import DataSpec
from tunelab.core.words import free_name
from tunelab.data.gate import Finding
from tunelab.data.texts import column_names
from tunelab.methods import METHODS
from tunelab.models import at_hand
from tunelab.models.bases import BUNDLED
from tunelab.serving.refusal import Refusal
from tunelab.stats.metrics import METRICS
from tunelab.study import announcing, file, resolve
from tunelab.study.announcing import Announced

__all__ = [
    "FileLookedAt",
    "Offered",
    "ProposedStudy",
    "StudyToCome",
    "kept_upload",
    "look_at",
    "offered",
    "planned_study",
]

UPLOADS = "data"  # the folder, among the studies, of files that were dropped
DEMOS = ("demo", "demo:stars")
NAMED_ON_HUB = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+(@[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class MethodOffered:
    """A method that may be chosen; `usual`: it is where nothing else is said."""

    name: str
    about: str
    usual: bool


@dataclass(frozen=True, slots=True)
class MetricOffered:
    """A metric that a study may be judged by, and how it is called in running text."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Offered:
    """What a new study may be made of: data (files that were dropped, demos), methods, metrics,
    and bases that are at hand. Where nothing is said, the first base and metric are taken.
    """

    files: tuple[str, ...]
    demos: tuple[str, ...]
    methods: tuple[MethodOffered, ...]
    bases: tuple[str, ...]
    metrics: tuple[MetricOffered, ...]
    seeds: int


@dataclass(frozen=True, slots=True)
class FileLookedAt:
    """What a file holds: its columns, which are taken, rows by part and by label, and what the gate
    found. `fault`: why it cannot be used as it is; then only the columns are known.
    """

    columns: tuple[str, ...]
    fault: str = ""
    text_column: str = ""
    label_column: str = ""
    rows: dict[str, int] | None = None
    labels: dict[str, int] | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    clear: str = ""


@dataclass(frozen=True, slots=True)
class ProposedStudy:
    """What the page asks for. `data`: a dropped file's name, or a demo; "" columns are guessed.

    `model`: a base that is offered, or a hub id. It and `metric` are as usual where they are "".
    """

    name: str
    data: str
    methods: tuple[str, ...]
    seeds: int
    text_column: str = ""
    label_column: str = ""
    tuning: bool = True
    drop_leaks: bool = False
    budget: str = ""
    model: str = ""
    metric: str = ""

    def folder(self, home: Path) -> Path:
        """The study's folder. Raises Refusal for a name that is none, or taken."""
        if self.name == UPLOADS:
            raise Refusal("exists", f"{UPLOADS} is where dropped files lie. Choose another name.")
        if not re.fullmatch(r"\w[\w.-]{0,79}", self.name):
            raise Refusal(
                "invalid", f"{self.name!r} is no name: expected letters, digits, dots and dashes."
            )
        if (home / self.name).exists():
            raise Refusal("exists", f"{self.name} is there already. Choose another name.")
        return home / self.name

    def keys(self, home: Path) -> dict[str, object]:
        """The study keys that it sets, by their path; what is left out is as usual."""
        given: dict[str, object] = {
            "data.source": str(source_in(home, self.data)),
            "data.text_column": self.text_column or None,
            "data.label_column": self.label_column or None,
            "data.on_leak": "drop" if self.drop_leaks else None,
            "model": base_in(home, self.model) if self.model else None,
            "methods": list(self.methods),
            "metric": self.metric or None,
            "seeds": self.seeds,
            "tuning": None if self.tuning else False,
            "budget": self.budget or None,
            "output_dir": str(self.folder(home)),
        }
        return {path: value for path, value in given.items() if value is not None}

    def words(self, home: Path) -> list[str]:
        """The command, after `tunelab`, that runs it."""
        keys = self.keys(home)
        flags = (
            f"--{key.name.replace('_', '-')}={_as_flag(keys[key.path])}"
            for key in file.study_keys()
            if key.path in keys and key.path != "data.source"
        )
        return ["compare", str(keys["data.source"]), *flags]


def _as_flag(value: object) -> str:
    if value is False:
        return "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, slots=True)
class StudyToCome:
    """What a study would run: `trials` at most, about how long that takes, the smallest difference
    that it finds (in points, 4 times of 5), all that `compare --dry-run` says, and the command.
    """

    trials: int
    takes: str
    finds: float
    lines: tuple[Announced, ...]
    command: str


def offered(home: Path) -> Offered:
    """What a new study may be made of."""
    below = home / UPLOADS
    names = sorted(p.name for p in below.iterdir() if p.is_file()) if below.is_dir() else []
    methods = (
        MethodOffered(m.name, m.about, m.name in file.DEFAULT_METHODS) for m in METHODS.values()
    )
    return Offered(
        files=tuple(n for n in names if not n.startswith(".")),
        demos=DEMOS,
        methods=tuple(methods),
        bases=tuple(dict.fromkeys((*at_hand.bases_fetched(), *at_hand.bases_in(home)))),
        metrics=tuple(MetricOffered(m.name, m.label) for m in METRICS.values()),
        seeds=file.DEFAULT_SEEDS,
    )


def source_in(home: Path, name: str) -> Path | str:
    """The data of a name: a dropped file, or a demo. Raises Refusal for any other."""
    if name in DEMOS:
        return name
    if name not in offered(home).files:
        raise Refusal("unknown", f"{name!r}: there is no such file. Drop it anew.")
    return home / UPLOADS / name


def base_in(home: Path, name: str) -> str:
    """The base of a name: one that lies in the folder, else the bundled one or a hub id.

    Raises Refusal for any other: no other folder of this machine is reached.
    """
    if name in at_hand.bases_in(home):
        return str(home / name)
    if name == BUNDLED or (NAMED_ON_HUB.fullmatch(name) and not Path(name).exists()):
        return name
    raise Refusal(
        "invalid",
        f"{name!r}: there is no such base. Expected one that is offered, or a hub id such as "
        "owner/name.",
    )


def kept_upload(home: Path, upload: Path) -> str:
    """Move a file that was dropped among the studies' data, and give its name there.

    A file that is there already stays: the same is taken for it, another gets another name.
    """
    folder = home / UPLOADS
    files.make_folder(folder)
    place = folder / upload.name
    if place.exists():
        if filecmp.cmp(place, upload, shallow=False):
            return place.name
        stem, dot, ending = upload.name.partition(".")  # of x.csv.gz both endings say what it is
        taken = {p.name.partition(".")[0] for p in folder.iterdir()}
        place = folder / f"{free_name(stem, taken, '{}-{}')}{dot}{ending}"
    with files.replacing(place) as beside:
        shutil.copyfile(upload, beside)
    return place.name


def look_at(home: Path, name: str, text_column: str, label_column: str) -> FileLookedAt:
    """Load data and have the gate look at it. Raises Refusal where there is no such file."""
    source = source_in(home, name)
    columns = column_names(source) if isinstance(source, Path) else ()
    try:
        loaded = data.load(DataSpec(str(source), text_column or None, label_column or None))
    except DataError as e:
        return FileLookedAt(columns, str(e))
    card, gate = data.describe(loaded), data.inspect(loaded)
    labels = dict.fromkeys(card["label_names"], 0)
    for counts in card["label_counts"].values():
        for label, n in counts.items():
            labels[label] += n
    return FileLookedAt(
        columns,
        text_column=loaded.text_column,
        label_column=loaded.label_column,
        rows=dict(card["sizes"]),
        labels=labels,
        notes=tuple(loaded.notes),
        findings=gate.findings,
        clear=gate.clear,
    )


def planned_study(home: Path, proposed: ProposedStudy) -> StudyToCome:
    """Plan a study, as `compare --dry-run` does. Raises InputError, Refusal."""
    spec = resolve.resolve_study(None, proposed.keys(home), {})
    schedule = study.scheduled(study.plan(spec))
    return StudyToCome(
        trials=study.to_come(schedule.progress).most,
        takes=announcing.how_long(schedule),
        finds=100 * study.power(schedule.progress).difference,
        lines=tuple(announcing.announced(schedule)),
        command="tunelab " + shlex.join(proposed.words(home)),
    )
