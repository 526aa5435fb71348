"""A classifier without a network: what each token of a text says of each class, averaged.

logits = sum of table[token] over a text's tokens / their number + offsets. A linear head on the
mean of token vectors is no more than that, so only this product of both is kept: some numbers a
token. It loads no more than numpy and the library tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import check_labels, seal
from tunelab.core.values import Artifact, BaseRef, ScoreKind
from tunelab.models import tokenizer_probe
from tunelab.models.named_numbers import as_it_was_saved, read_numbers, save_numbers
from tunelab.models.vector_heads import expect

__all__ = [
    "KnownTokens",
    "StaticClassifier",
    "open_static",
]


_TABLE_FILE, _TOKENIZER_FILE = "static.safetensors", "tokenizer.json"
_TEXTS_IN_A_CALL = 2048


@dataclass(frozen=True, slots=True, eq=False)
class KnownTokens:
    """The tokens of texts, `ids` one text after the other (n_tokens,), of each text `lengths` (n,).

    Those that are not `known` (vocabulary,) are left out: special ones, and the unknown one.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: Any, known: NDArray[np.bool_], texts: Sequence[str]) -> KnownTokens:
        """`tokenizer`: of the library tokenizers, without padding and truncation."""
        ids, lengths = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for first in range(0, len(texts), _TEXTS_IN_A_CALL):
            some = list(texts[first : first + _TEXTS_IN_A_CALL])
            encoded = tokenizer.encode_batch_fast(some, add_special_tokens=False)
            for e in encoded:
                own = np.asarray(e.ids, dtype=np.int64)
                ids.append(own[known[own]])
                lengths.append(np.asarray([len(ids[-1])]))
        return cls(np.concatenate(ids), np.concatenate(lengths))

    def means(self, table: NDArray[np.floating]) -> NDArray[np.float64]:
        """The mean of a text's rows of a table (vocabulary, k): (n, k). Zeros of a text without."""
        out = np.zeros((len(self.lengths), table.shape[1]))
        some = np.flatnonzero(self.lengths)
        if len(some):
            starts = np.cumsum(self.lengths) - self.lengths
            sums = np.add.reduceat(table[self.ids], starts[some], axis=0, dtype=np.float64)
            out[some] = sums / self.lengths[some, None]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class StaticClassifier:
    """`table` (vocabulary, n_classes) float32, `offsets` (n_classes,); `known` (vocabulary,) tokens
    count. `base` is what the token vectors were distilled from: it is not needed any more.
    """

    tokenizer: Any
    table: NDArray[np.float32]
    offsets: NDArray[np.float64]
    known: NDArray[np.bool_]
    label_names: tuple[str, ...]
    base: BaseRef
    score_kind: ScoreKind = "logit"

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes)."""
        return KnownTokens.of(self.tokenizer, self.known, texts).means(self.table) + self.offsets

    def save(self, directory: Path) -> None:
        """Write the table and the tokenizer."""
        self.tokenizer.save(str(directory / _TOKENIZER_FILE))
        names = ("table", "offsets", "known")
        save_numbers(directory / _TABLE_FILE, {name: getattr(self, name) for name in names})
        seal(
            directory,
            {
                "kind": "static",
                "label_names": list(self.label_names),
                "score_kind": self.score_kind,
                "base": asdict(self.base),
            },
        )


def open_static(artifact: Artifact) -> StaticClassifier:
    """Load what `save` wrote. Raises ArtifactError where it is something else."""
    from tokenizers import Tokenizer

    directory = artifact.directory
    with as_it_was_saved(artifact):
        numbers = read_numbers(artifact, _TABLE_FILE)
        table, offsets, known = (numbers[n] for n in ("table", "offsets", "known"))
        expect("table", table.ndim, 2)
        expect("offsets", offsets.shape, table.shape[1:])
        expect("known tokens", known.shape, table.shape[:1])
        names = check_labels(artifact, table.shape[1])
        base = BaseRef(**artifact.manifest["base"])
        tokenizer_probe.refuse_endless(str(directory), directory)
        tokenizer = _read_tokenizer(Tokenizer, directory / _TOKENIZER_FILE)
        if max(tokenizer.get_vocab().values(), default=0) >= len(table):
            raise ValueError("a token without a row in the table")
        return StaticClassifier(tokenizer, table, offsets, known.astype(bool), names, base)


def _read_tokenizer(kind: Any, file: Path) -> Any:
    try:
        tokenizer = kind.from_file(str(file))
    except Exception as e:  # the library raises nothing more particular
        raise ValueError(f"{file.name}: {e}") from e
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
