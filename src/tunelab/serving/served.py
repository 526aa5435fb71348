"""A classifier as the server holds it: reads texts, and is scored together with others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunelab.core.errors import ArtifactError
from tunelab.core.values import Classifier, ScoreKind
from tunelab.models.batches import Encoded, encode
from tunelab.models.classifier import TransformerClassifier
from tunelab.models.embedded import EmbeddedClassifier
from tunelab.models.embeddings import Embedder
from tunelab.models.exported import ExportedClassifier
from tunelab.models.shared_row import RowMember, SharedRow
from tunelab.models.text_classifier import TextClassifier
from tunelab.serving.refusal import Refusal
from tunelab.stats import calibration, predictions
from tunelab.stats.abstention import Abstention, NoThresholdError

__all__ = [
    "HowRun",
    "Item",
    "Reader",
    "Runner",
    "Served",
    "TextReader",
    "Token",
    "TokenReader",
    "abstention_in",
    "alone",
    "row_runner",
    "token_reader",
    "why_no_temperature",
]

# A text as a classifier takes it: token ids (int64), or the text itself.
Item = NDArray[np.int64] | str
Floats = NDArray[np.float64]

_NO_CUT = 1_000_000
_CHARACTERS_A_TOKEN = 4
_NO_TOKENS = "This model has no tokenizer: it reads words and characters. Send texts."


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text; `start` and `stop` in characters, None for one that the model adds."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Reader(Protocol):
    """Makes items of texts. `max_length`: tokens of a text that are read; None: all are."""

    max_length: int | None

    def read(self, texts: Sequence[str], *, cut: bool = True, left: bool = False) -> list[Item]:
        """An item for each text. Raises Refusal for one that is too long and may not be cut."""
        ...

    def length(self, item: Item) -> int:
        """Tokens of an item: what it costs to compute it."""
        ...

    def tokens(self, texts: Sequence[str], special: bool) -> list[list[Token]]:
        """Every text's tokens, not cut. Raises Refusal where there are none."""
        ...

    def from_ids(self, ids: Sequence[int]) -> Item:
        """An item of token ids. Raises Refusal for what the model cannot read."""
        ...


class TextReader:
    """Of classifiers that take texts as they are: what a text costs is guessed by its length."""

    max_length: int | None = None

    def read(self, texts: Sequence[str], *, cut: bool = True, left: bool = False) -> list[Item]:
        """The texts themselves."""
        return list(texts)

    def length(self, item: Item) -> int:
        """About as many tokens as it has."""
        return max(1, len(item) // _CHARACTERS_A_TOKEN)

    def tokens(self, texts: Sequence[str], special: bool) -> list[list[Token]]:
        """There are none."""
        raise Refusal("no_tokens", _NO_TOKENS)

    def from_ids(self, ids: Sequence[int]) -> Item:
        """There are none."""
        raise Refusal("no_tokens", _NO_TOKENS)


class TokenReader:
    """Of transformers. A tokenizer keeps its limits in itself: it reads one request at a time."""

    def __init__(self, tokenizer: Any, max_length: int, vocabulary: int) -> None:
        self.max_length: int | None = max_length
        self._vocabulary = vocabulary
        self.tokenizer = tokenizer
        self._limit = max_length
        self._alone = threading.Lock()

    def read(self, texts: Sequence[str], *, cut: bool = True, left: bool = False) -> list[Item]:
        """Token ids of each text, cut at the right end (or the left) where it is too long."""
        with self._alone:
            side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, "right"
            try:
                if left:
                    self.tokenizer.truncation_side = "left"
                ids = encode(self.tokenizer, texts, self._limit if cut else _NO_CUT).ids
            finally:
                self.tokenizer.truncation_side = side
        longest = max(map(len, ids), default=0)
        if longest > self._limit:
            raise Refusal(
                "too_long",
                f"`inputs` must have less than {self._limit + 1} tokens. Given: {longest}",
            )
        return list(ids)

    def length(self, item: Item) -> int:
        """The number of its tokens."""
        return len(item)

    def from_ids(self, ids: Sequence[int]) -> Item:
        """Ids of the model's own vocabulary, no more than it reads."""
        if not 0 < len(ids) <= self._limit:
            raise Refusal("too_long", f"expected 1 to {self._limit} token ids, found {len(ids)}.")
        if min(ids) < 0 or max(ids) >= self._vocabulary:
            raise Refusal("invalid", f"expected token ids from 0 to {self._vocabulary - 1}.")
        return np.asarray(ids, dtype=np.int64)

    def tokens(self, texts: Sequence[str], special: bool) -> list[list[Token]]:
        """Every text's tokens, with where they lie in it."""
        with self._alone:
            said = self.tokenizer(
                list(texts),
                add_special_tokens=special,
                truncation=False,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
            )
        rows = zip(
            texts,
            said["input_ids"],
            said["offset_mapping"],
            said["special_tokens_mask"],
            strict=True,
        )
        return [
            [
                Token(i, self.tokenizer.convert_ids_to_tokens(i), True, None, None)
                if mark
                else Token(i, text[a:b], False, a, b)
                for i, (a, b), mark in zip(ids, spans, marks, strict=True)
            ]
            for text, ids, spans, marks in rows
        ]


class Runner(Protocol):
    """Computes what waits for the classifiers that have it: their items together."""

    def __call__(self, asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[Floats]:
        """Scores (n, n_classes) of each part, in order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A loaded classifier. Those that share a `runner` are computed together.

    `base`: name of what an adapter stands on; None for others. `temperature`: what its scores are
    divided by before they become probabilities; None: there is none, and `why_not` says why.
    `abstention`: when it had better not answer; None: not known, and `why_no_abstention` says why.
    `member`: its place in the row that its runner computes. `where`: "cpu" or a card. `notes`: what
    had to be decided on loading.
    """

    name: str
    folder: Path
    kind: str
    label_names: tuple[str, ...]
    score_kind: ScoreKind
    reader: Reader
    runner: Runner
    base: str | None = None
    temperature: float | None = None
    why_not: str = ""
    abstention: Abstention | None = None
    why_no_abstention: str = ""
    precision: str = "float32"
    member: RowMember | None = None
    where: str = "cpu"
    notes: tuple[str, ...] = ()

    def probabilities(self, scores: Floats, calibrated: bool | None = None) -> Floats:
        """Probabilities (n, n_classes) of scores, as `tunelab predict` gives them: at the model's
        temperature where it has one. `calibrated`: False, without; True, refused without one.
        """
        if calibrated and self.temperature is None:
            raise Refusal("invalid", f"No calibrated probabilities: {self.why_not}")
        if calibrated is False or self.temperature is None:
            return predictions.probabilities(scores, self.score_kind)
        logits = calibration.logits_at_temperature(scores, self.score_kind, self.temperature)
        return predictions.probabilities(logits, "logit")

    def answers(self, scores: Floats, error: float) -> NDArray[np.bool_]:
        """Which texts are answered, (n,), where at most this share of all may be answered wrongly.

        Raises Refusal where that is not known, and where validation had too few rows to promise it.
        """
        if self.abstention is None:
            raise Refusal("invalid", f"No abstention: {self.why_no_abstention}")
        try:
            return self.abstention.answers(self.probabilities(scores), error)
        except NoThresholdError as e:
            raise Refusal("invalid", f"abstain: {e}.") from e


@dataclass(frozen=True, slots=True, eq=False)
class HowRun:
    """What reads and runs a classifier, what its layers compute in, and where ("cpu", "cuda");
    `member` as in `Served`.
    """

    reader: Reader
    runner: Runner
    precision: str
    member: RowMember | None = None
    where: str = "cpu"


def alone(loaded: TextClassifier) -> HowRun:
    """How a classifier is run by itself."""
    own = loaded.classifier
    if isinstance(own, TransformerClassifier):
        # The server's weights never change: what is prepared once is asked without another look.
        prepared, width, pad_id, batch_size = (
            own.prepared(), len(own.label_names), own.pad_id, own.batch_size,
        )  # fmt: skip

        def logits(encoded: Encoded) -> Floats:
            return prepared(encoded, pad_id, batch_size, width).astype(np.float64)

        runner, where = _of_tokens(logits), prepared.where.type
        return HowRun(token_reader(own), runner, prepared.precision, where=where)
    if isinstance(own, EmbeddedClassifier):
        embedder: Embedder = own.embedder
        reader = TokenReader(embedder.tokenizer, embedder.max_length, embedder.vocabulary)
        runner = _of_tokens(lambda encoded: own.head.scores(embedder.embed(encoded)))
        where = embedder.prepared().where.type
        return HowRun(reader, runner, embedder.prepared().precision, where=where)
    if isinstance(own, ExportedClassifier) and own.tokenizer is not None:
        limit = loaded.max_length
        assert limit is not None  # noqa: S101  what has a tokenizer has one
        reader = TokenReader(own.tokenizer, limit, own.tokenizer.vocabulary)
        said = loaded.artifact.manifest.get("exported_from")
        rounded = isinstance(said, Mapping) and said.get("rung")
        return HowRun(reader, _of_tokens(own.token_scores), "int8" if rounded else "float32")
    return HowRun(TextReader(), _of_texts(own), "float64")


def _of_tokens(score: Callable[[Encoded], Floats]) -> Runner:
    def run(asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[Floats]:
        return [score(Encoded(tuple(np.asarray(i) for i in items))) for _, items in asked]

    return run


def _of_texts(own: Classifier) -> Runner:
    def run(asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[Floats]:
        return [own.scores([str(item) for item in items]) for _, items in asked]

    return run


def token_reader(own: TransformerClassifier) -> TokenReader:
    """What reads for a transformer."""
    return TokenReader(own.tokenizer, own.max_length, own.model.config.vocab_size)


def row_runner(row: SharedRow) -> Runner:
    """What runs all adapters of a row: one batch, whoever asks."""

    def logits(asked: Sequence[tuple[Served, Sequence[Item]]]) -> list[Floats]:
        parts = [
            (model.member, [np.asarray(i) for i in items])
            for model, items in asked
            if model.member is not None
        ]
        return row(parts)

    return logits


def why_no_temperature(loaded: TextClassifier) -> str:
    """Why an artifact has no temperature; empty where it has one."""
    try:
        calibration.read_temperature(loaded.artifact)
    except ArtifactError as e:
        return str(e)
    return ""


def abstention_in(loaded: TextClassifier) -> tuple[Abstention | None, str]:
    """When a classifier had better abstain, or None and why that is not known."""
    try:
        return calibration.read_abstention(loaded.artifact), ""
    except ArtifactError as e:
        return None, str(e)
