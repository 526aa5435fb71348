"""Folders of any kind -> models that the server holds."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tunelab.core.artifact import (
    MANIFEST,
    read_manifest,
    refuse_lacking,
    refuse_several_labels,
)
from tunelab.core.errors import ArtifactError, ConfigError, TunelabError
from tunelab.core.values import Artifact, BaseRef
from tunelab.models import bases, classifier, foreign, text_classifier
from tunelab.models.bases import Base
from tunelab.models.classifier import TransformerClassifier
from tunelab.models.shared_row import SharedRow
from tunelab.models.text_classifier import TextClassifier
from tunelab.serving.adapter_set import share_weights
from tunelab.serving.refusal import Refusal
from tunelab.serving.served import (
    HowRun,
    Runner,
    Served,
    abstention_in,
    alone,
    row_runner,
    token_reader,
    why_no_temperature,
)
from tunelab.stats import calibration

__all__ = [
    "FIXED",
    "Loader",
    "NamedFolder",
    "below",
    "named_folders",
    "read_names",
]


FIXED = "Models may not be changed here: start the server with --adapter-dir FOLDER."


@dataclass(frozen=True, slots=True)
class NamedFolder:
    """What a model is called, and the folder of its classifier."""

    name: str
    folder: Path


def read_names(given: Sequence[str]) -> list[tuple[str | None, Path]]:
    """Read FOLDER or NAME=FOLDER, as the command line has them."""
    pairs: list[tuple[str | None, Path]] = []
    for each in given:
        name, equals, path = each.partition("=")
        named = bool(equals) and not Path(each).expanduser().exists()
        pairs.append((name, Path(path)) if named else (None, Path(each)))
    return pairs


def named_folders(
    given: Iterable[tuple[str | None, Path]], resolve: Callable[[Path], Path]
) -> list[NamedFolder]:
    """What models are called, and their folders; one without a name is called as its folder is.

    `resolve` says which classifier a folder stands for (a study's best). Raises ConfigError where
    two would be called the same.
    """
    models: dict[str, Path] = {}
    for said, path in given:
        folder = path.expanduser()
        name = said or _called(folder)
        if not re.fullmatch(r"[\w.@+-]+", name):
            raise ConfigError(
                f"{name!r} is no name for a model: expected letters, digits, dots, dashes. "
                f"Give one: NAME={path}"
            )
        if name in models:
            raise ConfigError(
                f"Two models would be called {name!r} ({models[name]} and {folder}). Give names: "
                f"one={models[name]} other={folder}"
            )
        models[name] = folder
    return [NamedFolder(name, resolve(folder)) for name, folder in models.items()]


def _called(folder: Path) -> str:
    full = folder.resolve()
    return full.parent.name if full.name == "artifact" else full.name


def below(root: Path | None, path: str) -> Path:
    """A folder below `root`, as a request names it. Raises Refusal for anything else."""
    if root is None:
        raise Refusal("forbidden", FIXED)
    inside = root.resolve()
    try:
        folder = (inside / path).resolve()
    except (OSError, ValueError, RuntimeError) as e:
        raise Refusal("forbidden", f"{path!r}: is no path ({e}).") from e
    if folder == inside or not folder.is_relative_to(inside):
        raise Refusal("forbidden", f"{path!r}: lies outside of the server's --adapter-dir.")
    if not folder.is_dir():
        raise Refusal("unknown", f"{path!r}: not a folder in the server's --adapter-dir.")
    return folder


class Loader:
    """Opens classifiers; those on one base share its weights. One folder at a time.

    `precision`: what layers compute in (models.scoring.PRECISIONS). `base_at`: where the base of
    adapters lies now, if not where it was.
    """

    def __init__(
        self,
        precision: str = "auto",
        *,
        base_at: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.base_at = base_at
        self.precision = precision
        self.trust_remote_code = trust_remote_code
        self._bases: dict[str, Base] = {}  # of adapters, by the hash of their weights
        self._shared: dict[str, dict[str, torch.Tensor]] = {}
        self._rows: dict[tuple[str, int], tuple[SharedRow, Runner]] = {}
        self._alone = threading.Lock()

    def open(self, model: NamedFolder, *, on_known_bases: bool = False) -> Served:
        """Load a classifier. Raises ArtifactError.

        `on_known_bases`: an adapter must stand on a base that is in memory, so that nothing is
        looked for anywhere else.
        """
        with self._alone:
            loaded = self._open(foreign.find_artifact(model.folder), on_known_bases)
            refuse_several_labels(loaded.artifact, "a server")
            loaded = loaded.computing_in(self.precision)
            run = self._in_a_row(loaded)
        run = run or alone(loaded)
        manifest, own = loaded.artifact.manifest, loaded.classifier
        # Who asks is not told where things lie on this machine.
        here = str(loaded.artifact.directory)
        abstention, why_no_abstention = abstention_in(loaded)
        base = manifest.get("base") if manifest["kind"] == "adapter" else None
        return Served(
            model.name,
            loaded.artifact.directory,
            manifest["kind"],
            tuple(own.label_names),
            own.score_kind,
            run.reader,
            run.runner,
            base=Path(base["name"]).name if base else None,  # not where it lies on this machine
            temperature=loaded.temperature,
            why_not=why_no_temperature(loaded).replace(here, model.name),
            abstention=abstention,
            why_no_abstention=why_no_abstention.replace(here, model.name),
            precision=run.precision,
            member=run.member,
            where=run.where,
            notes=loaded.notes,
        )

    def open_below(self, root: Path | None, name: str, path: str) -> Served:
        """Load what a request names. Raises Refusal."""
        folder = below(root, path)
        try:
            return replace(self.open(NamedFolder(name, folder), on_known_bases=True), name=name)
        except Refusal:
            raise
        except TunelabError as e:
            # Who asks is not told where things lie on this machine.
            raise Refusal("invalid", str(e).replace(str(folder), path)) from e

    def _open(self, folder: Path, on_known_bases: bool) -> TextClassifier:
        if not foreign.needs_base(folder):
            return text_classifier.open_classifier(folder, self.trust_remote_code)
        base = self._known_base(folder)
        if base is None and on_known_bases:
            raise self._stranger(folder)
        if not (folder / foreign.ADAPTER).is_file():  # an SVM on embeddings
            place = self.base_at if base is None else str(base.path)
            loaded = text_classifier.open_classifier(folder, self.trust_remote_code, place)
            if base is None and loaded.artifact.manifest.get("base"):  # an ensemble names none
                base = self._base_of(loaded.artifact)
            if base is not None:
                self._bases[base.ref.sha256] = base
            return loaded
        artifact = foreign.open_folder(folder, base, model=None if base else self.base_at)
        base = base or self._base_of(artifact)
        refuse_lacking(artifact)
        own = classifier.load_on(base, artifact)
        self._bases[base.ref.sha256] = base
        if not own.quantization:
            share_weights(own.model, self._shared.setdefault(base.ref.sha256, {}))
        return TextClassifier(own, artifact, calibration.kept_temperature(artifact))

    def _in_a_row(self, loaded: TextClassifier) -> HowRun | None:
        """How an adapter is run beside others of its base; None: it is run alone."""
        own = loaded.classifier
        if not isinstance(own, TransformerClassifier) or own.quantization:
            return None
        if loaded.artifact.manifest["kind"] != "adapter":
            return None
        key = (own.base.sha256, own.pad_id)
        if key not in self._rows:
            row = SharedRow.of(own.model, self.precision, own.pad_id)
            if row is None:
                return None
            self._rows[key] = (row, row_runner(row))
        row, runner = self._rows[key]
        member = row.member(own.model, len(own.label_names))
        if member is None:
            return None
        return HowRun(token_reader(own), runner, row.precision, member, row.where)

    def _base_of(self, artifact: Artifact) -> Base:
        ref = BaseRef(**artifact.manifest["base"])
        return bases.resolve_exactly(ref, artifact.directory, self.trust_remote_code)

    def _known_base(self, folder: Path) -> Base | None:
        """The base of what stands on one, if the server holds a model on it."""
        if (folder / MANIFEST).is_file():
            base = read_manifest(folder).manifest.get("base")
            return self._bases.get(base["sha256"]) if base else None
        wanted = foreign.read_object(folder / foreign.ADAPTER).get("base_model_name_or_path")
        named = (b for b in self._bases.values() if wanted in {b.ref.name, str(b.path)})
        return next(named, None)

    def _stranger(self, folder: Path) -> ArtifactError:
        # Who asks is not told where they lie on this machine.
        known = ", ".join(Path(b.ref.name).name for b in self._bases.values()) or "none"
        return ArtifactError(
            f"{folder.name}: needs a base that the server does not hold (it holds: {known}). "
            "Start the server with a model on that base."
        )
