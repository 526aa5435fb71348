"""A classifier as a graph that onnxruntime or OpenVINO runs: no torch, transformers or peft.

`exporting` writes such folders. `python -m tunelab.models.exported FOLDER` scores a JSON list of
texts from standard input, and writes the scores to standard output as a .npy file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from tunelab.core.artifact import MANIFEST, check_labels, read_manifest
from tunelab.core.errors import ArtifactError, TunelabError
from tunelab.core.extras import install_line
from tunelab.core.shapes import fault
from tunelab.core.values import Artifact, ScoreKind
from tunelab.models import tokenizer_probe
from tunelab.models.batches import Encoded, encode, pad
from tunelab.models.tfidf import analyzer_of, check_ngrams, grams_of

__all__ = [
    "CONFIG",
    "RUNTIMES",
    "ExportedClassifier",
    "FileTokenizer",
    "Inputs",
    "TermPart",
    "input_batches",
    "open_exported",
    "open_graph",
    "run_graph",
]

Inputs = Mapping[str, NDArray[Any]]
# The kinds of artifacts that are graphs, and the package that runs each.
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
_EXTRAS = {"onnx": "export", "openvino": "openvino"}
# Texts of a batch at most, and their tokens; a processor is busy with fewer.
_BATCH_TEXTS, _BATCH_TOKENS = 32, 4096
TOKENIZER, VOCABULARY, CONFIG = "tokenizer.json", "vocabulary.json", "config.json"


class TermPart(TypedDict):
    """One vectorizer of a TF-IDF SVM, as vocabulary.json has it: what a feature is, and all terms
    in the order of their numbers.
    """

    analyzer: str
    ngram_range: list[int]
    sublinear_tf: bool
    terms: list[str]


class FileTokenizer:
    """An export's tokenizer.json, called as transformers' tokenizers are."""

    def __init__(self, artifact: Artifact) -> None:
        from tokenizers import Tokenizer

        tokenizer_probe.refuse_endless(str(artifact.directory), artifact.directory)
        self._tokenizer = Tokenizer.from_file(str(artifact.directory / TOKENIZER))
        self._tokenizer.no_padding()
        self.pad_token_id = artifact.manifest.get("pad_id", 0)
        self.truncation_side = "right"

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(
        self,
        texts: list[str],
        *,
        truncation: bool = True,
        max_length: int = 0,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
        **_: bool,
    ) -> dict[str, list[Any]]:
        """Token ids of texts, cut at `max_length`; with offsets, where each lies in its text."""
        if truncation:
            self._tokenizer.enable_truncation(max_length, direction=self.truncation_side)
        else:
            self._tokenizer.no_truncation()
        if not return_offsets_mapping:
            encodings = self._tokenizer.encode_batch_fast(texts)
            return {"input_ids": [e.ids for e in encodings], "encodings": encodings}
        rows = self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        return {
            "input_ids": [e.ids for e in rows],
            "offset_mapping": [e.offsets for e in rows],
            "special_tokens_mask": [e.special_tokens_mask for e in rows],
        }

    def convert_ids_to_tokens(self, number: int) -> str:
        """The token of an id."""
        return str(self._tokenizer.id_to_token(number))


@dataclass(frozen=True, slots=True, eq=False)
class ExportedClassifier:
    """`read` makes a graph's inputs of texts, in batches with their row numbers; `run` computes
    their logits. `tokenizer`: None for a TF-IDF SVM, which reads texts whole.
    """

    artifact: Artifact
    label_names: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[tuple[NDArray[np.int64], Inputs]]]
    run: Callable[[Inputs], NDArray[np.float32]]
    tokenizer: FileTokenizer | None
    score_kind: ScoreKind = "logit"

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits (n, n_classes). Raises ArtifactError for a graph that gives something else."""
        return self._scores(self.read(texts), len(texts))

    def token_scores(self, encoded: Encoded) -> NDArray[np.float64]:
        """Logits (n, n_classes) of texts that are tokens already; not of a TF-IDF SVM."""
        return self._scores(_token_batches(self.artifact, encoded), len(encoded))

    def _scores(
        self, batches: Iterable[tuple[NDArray[np.int64], Inputs]], count: int
    ) -> NDArray[np.float64]:
        out = np.empty((count, len(self.label_names)))
        for rows, inputs in batches:
            with _as_it_was_exported(self.artifact.directory):
                logits = self.run(inputs)
                if logits.shape != (len(rows), out.shape[1]) or not np.isfinite(logits).all():
                    raise ValueError(
                        f"its graph gives scores of shape {logits.shape}, expected finite numbers "
                        f"({len(rows)}, {out.shape[1]})"
                    )
                out[rows] = logits
        return out

    def save(self, directory: Path) -> None:
        """Copy the folder: its files and its manifest."""
        for name in (*self.artifact.manifest["files"], MANIFEST):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.artifact.directory / name, directory / name)


def open_exported(artifact: Artifact) -> ExportedClassifier:
    """Load what `exporting` wrote. Raises ArtifactError where its runtime is not installed."""
    name = str(artifact.manifest.get("graph"))
    graph = artifact.directory / name
    # One of the files whose hashes were checked: no other path is opened.
    if name not in artifact.manifest["files"] or not graph.is_file():
        raise ArtifactError(
            f"{artifact.directory}: expected the graph that {MANIFEST} names, {graph.name}; found "
            "none. Copy the whole folder, or export again."
        )
    return open_graph(artifact, run_graph(graph, artifact.manifest["kind"]))


def open_graph(
    artifact: Artifact, run: Callable[[Inputs], NDArray[np.float32]]
) -> ExportedClassifier:
    """A classifier of the folder's texts to inputs, and of any graph."""
    with _as_it_was_exported(artifact.directory):
        config = json.loads((artifact.directory / CONFIG).read_text(encoding="utf-8"))
        names = check_labels(artifact, len(config["id2label"]))
        whole = (artifact.directory / VOCABULARY).is_file()
        tokenizer = None if whole else FileTokenizer(artifact)
        read = input_batches(artifact, tokenizer)
    kind = artifact.manifest.get("score_kind", "logit")
    return ExportedClassifier(artifact, names, read, run, tokenizer, kind)


@contextmanager
def _as_it_was_exported(directory: Path) -> Iterator[None]:
    """Say in one line that files are not those of an export."""
    try:
        yield
    except (TunelabError, MemoryError):
        raise
    except Exception as e:  # those of tokenizers and of the runtimes have no other common root
        reason = (str(e).strip().splitlines() or [""])[0][:200]
        raise ArtifactError(
            f"{directory}: its files are not those that `tunelab export` wrote "
            f"({type(e).__name__}: {reason}). Copy the whole folder, or export again."
        ) from e


# --- graphs ---------------------------------------------------------------------------------


def run_graph(graph: Path, kind: str, threads: int | None = None) -> Any:
    """What computes a graph's logits, (inputs by name) -> (b, n_classes); `kind` as in RUNTIMES.

    `threads`: None for as many as OMP_NUM_THREADS says, else as the runtime likes.
    """
    threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    try:
        return {"onnx": _onnxruntime, "openvino": _openvino}[kind](graph, threads)
    except ImportError as e:
        raise ArtifactError(
            f"{graph}: is run by {RUNTIMES[kind]}, which is not installed. Install it: "
            f"{install_line(_EXTRAS[kind], [RUNTIMES[kind]])}"
        ) from e


def _onnxruntime(graph: Path, threads: int) -> Callable[[Inputs], NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's own errors have no common root but this
        raise ArtifactError(
            f"{graph}: onnxruntime {onnxruntime.__version__} cannot read it "
            f"({str(e).strip().splitlines()[0]}). Update onnxruntime, or export again."
        ) from e
    return lambda inputs: np.asarray(session.run(None, dict(inputs))[0])


def _openvino(graph: Path, threads: int) -> Callable[[Inputs], NDArray[np.float32]]:
    import openvino

    # Left to itself it computes in bfloat16 where the processor has it: other scores.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = openvino.Core().compile_model(graph, "CPU", options)
    return lambda inputs: np.array(compiled(dict(inputs))[0])


# --- texts to inputs ------------------------------------------------------------------------


def input_batches(artifact: Artifact, tokenizer: FileTokenizer | None = None) -> Any:
    """What makes inputs of texts in batches: tokens (of `tokenizer`, where it was loaded already),
    or the terms of a TF-IDF SVM.
    """
    directory, manifest = artifact.directory, artifact.manifest
    if (directory / VOCABULARY).is_file():
        parts = json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))
        _check_terms(parts)
        known = [{term: i for i, term in enumerate(part["terms"])} for part in parts]
        return lambda texts: _term_batches(parts, known, texts)
    own = tokenizer or FileTokenizer(artifact)
    limit = manifest["max_length"]
    return lambda texts: _token_batches(artifact, encode(own, texts, limit))


def _token_batches(
    artifact: Artifact, encoded: Encoded
) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
    apart, pad_id = bool(artifact.manifest.get("one_length")), artifact.manifest.get("pad_id", 0)
    for rows in _like_lengths(encoded.lengths, apart):
        batch = pad(encoded, rows, pad_id)
        yield rows, {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def _check_terms(parts: object) -> None:
    """Raise ValueError where this is not what vocabulary.json holds: a list of `TermPart`."""
    if wrong := fault(parts, list[TermPart]):
        raise ValueError(f"{VOCABULARY}: {wrong}")
    for part in cast("list[TermPart]", parts):
        check_ngrams(part["analyzer"], part["ngram_range"])


def _like_lengths(lengths: NDArray[np.int64], apart: bool) -> Iterator[NDArray[np.int64]]:
    """Row numbers in batches, shortest first; `apart`: of one length each."""
    order = np.argsort(lengths, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if apart else [order]
    for group in groups:
        start = 0
        while start < len(group):
            # The last of a batch is its longest.
            room = np.arange(1, _BATCH_TEXTS + 1)[: len(group) - start]
            fits = room * lengths[group[start : start + _BATCH_TEXTS]] <= _BATCH_TOKENS
            many = max(1, int(fits.sum()))
            yield group[start : start + many]
            start += many


def _term_batches(
    parts: Sequence[TermPart], known: Sequence[Mapping[str, int]], texts: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
    for start in range(0, len(texts), _BATCH_TEXTS):
        some = texts[start : start + _BATCH_TEXTS]
        inputs: dict[str, NDArray[Any]] = {}
        for k, (part, numbers) in enumerate(zip(parts, known, strict=True)):
            what = analyzer_of(part["analyzer"]), (part["ngram_range"][0], part["ngram_range"][1])
            counts = [Counter(t for t in grams_of(x, *what) if t in numbers) for x in some]
            width = max(1, *map(len, counts))
            ids = np.zeros((len(some), width), np.int64)
            times = np.zeros((len(some), width), np.float32)
            for row, found_terms in enumerate(counts):
                n = len(found_terms)
                ids[row, :n] = [numbers[t] for t in found_terms]
                times[row, :n] = list(found_terms.values())
            inputs |= {f"term_ids_{k}": ids, f"term_counts_{k}": times}
        yield np.arange(start, start + len(some)), inputs


def _main() -> None:
    artifact = read_manifest(Path(sys.argv[1]))
    scores = open_exported(artifact).scores(json.load(sys.stdin))
    assert not {"torch", "transformers", "peft"} & set(sys.modules)  # noqa: S101
    buffer = io.BytesIO()
    np.save(buffer, scores)
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    _main()
