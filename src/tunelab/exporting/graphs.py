"""Classifiers as ONNX graphs in float32: transformers traced by torch, a TF-IDF SVM by hand."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tunelab.core.errors import ArtifactError
from tunelab.core.values import Artifact, Manifest, ScoreKind
from tunelab.exporting.merging import in_float
from tunelab.models import company, pretrained
from tunelab.models.classifier import TransformerClassifier, open_transformer
from tunelab.models.embedded import EmbeddedClassifier
from tunelab.models.embeddings import encoder_of
from tunelab.models.ensemble import EnsembleClassifier
from tunelab.models.entailment import EntailmentClassifier
from tunelab.models.exported import CONFIG, VOCABULARY
from tunelab.models.linear import TfidfSvm
from tunelab.models.llm import LlmClassifier
from tunelab.models.scoring import pooled
from tunelab.models.static import StaticClassifier
from tunelab.models.vector_heads import LinearHead

__all__ = [
    "GRAPH",
    "write_float_graph",
]

GRAPH = "onnx/model.onnx"
_INPUTS = ("input_ids", "attention_mask")
# Two texts of unlike lengths, so that padding is traced too: no token here is special.
_IDS, _MASK = [[5, 6, 7, 8, 9], [8, 7, 6, 0, 0]], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
# Of TF-IDF: opset and format that onnxruntime has read for years.
_OPSET, _IR = 18, 10


def write_float_graph(artifact: Artifact, classifier: Any, folder: Path, trusted: bool) -> Manifest:
    """Write a classifier's graph, config and tokenizer; give what its manifest is to say.

    `classifier` is used up. Raises ArtifactError, naming the reason, where it cannot be traced.
    """
    _refuse_what_is_no_graph(artifact, classifier)
    (folder / GRAPH).parent.mkdir(parents=True)
    if isinstance(classifier, TfidfSvm):
        facts = _write_tfidf(classifier, folder)
    elif isinstance(classifier, EmbeddedClassifier):
        facts = _write_embedded(artifact, classifier, folder, trusted)
    else:
        facts = _write_transformer(artifact, classifier, folder, trusted)
    manifest: Manifest = {
        "kind": "onnx",
        "label_names": list(classifier.label_names),
        "score_kind": classifier.score_kind,
        "graph": GRAPH,
        "files": {},
        **facts,  # type: ignore[typeddict-item]
    }
    return manifest


def _refuse_what_is_no_graph(artifact: Artifact, own: Any) -> None:
    why = None
    if isinstance(own, StaticClassifier):
        why = "a static classifier is one table of numbers, which runs without torch"
    elif isinstance(own, EntailmentClassifier):
        why = "its base reads each text once for each label"
    elif isinstance(own, LlmClassifier):
        why = "what answers is a model on a server"
    elif isinstance(own, EnsembleClassifier):
        why = "an ensemble is several classifiers, which are exported one by one"
    elif isinstance(own, EmbeddedClassifier) and not isinstance(own.head, LinearHead):
        why = f"what {own.kind} computes on the base's vectors is no product of matrices"
    if why is not None:
        raise ArtifactError(
            f"{artifact.directory}: no graph of it is written: {why}. Use it as it is, or export "
            "another method."
        )


# --- transformers ---------------------------------------------------------------------------


class _Logits(nn.Module):
    """A transformers classifier as a function of ids and mask alone; segments are zeros."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).logits
        return logits


class _PlanesOnEncoder(nn.Module):
    """An encoder, its pooling and hyperplanes on standardised vectors: W z + b."""

    def __init__(self, encoder: Any, pooling: str, head: LinearHead) -> None:
        super().__init__()
        self.encoder, self.pooling, self.unit = encoder, pooling, head.unit
        planes, standard = head.planes, head.standard
        self.head = nn.Linear(planes.weights.shape[1], planes.weights.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(planes.weights * planes.temperature))
            self.head.bias.copy_(torch.from_numpy(planes.offsets * planes.temperature))
        # Apart from the weights: columns that hardly vary would be lost in float32.
        self.mean, self.scale = (
            torch.from_numpy(x).float() for x in (standard.mean, standard.scale)
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = pooled(hidden, attention_mask, self.pooling)
        if self.unit:
            vectors = nn.functional.normalize(vectors, dim=1)
        logits: torch.Tensor = self.head((vectors - self.mean) / self.scale)
        return logits


def _write_transformer(
    artifact: Artifact, classifier: TransformerClassifier, folder: Path, trusted: bool
) -> dict[str, object]:
    model = classifier.model
    if artifact.manifest["kind"] == "adapter":
        model = _merged_or_beside(in_float(artifact), trusted)
    model = model.to("cpu").float().eval()
    apart = company.needs_one_length(
        model,
        lambda b: (
            model(
                input_ids=torch.from_numpy(b.input_ids),
                attention_mask=torch.from_numpy(b.attention_mask),
            ).logits
        ),
    )
    _trace(_Logits(model), folder / GRAPH, str(artifact.directory))
    names = classifier.label_names
    _write_config(model.config, names, classifier.pad_id, folder, classifier.score_kind)
    _write_tokenizer(classifier.tokenizer, classifier.max_length, folder, artifact)
    base = artifact.manifest.get("base")
    return {
        "base": base,
        "max_length": classifier.max_length,
        "pad_id": classifier.pad_id,
        **({"one_length": True} if apart else {}),
    }


def _merged_or_beside(artifact: Artifact, trusted: bool) -> Any:
    """The base in float32 with its adapter merged in, or beside it where it cannot be merged."""
    model = open_transformer(artifact, trust_remote_code=trusted).model
    if model.active_peft_config.is_prompt_learning:
        return model
    try:
        with pretrained.quiet():
            return pretrained.merged(model)
    except (AttributeError, NotImplementedError, ValueError, RuntimeError):
        return open_transformer(artifact, trust_remote_code=trusted).model


def _write_embedded(
    artifact: Artifact, own: EmbeddedClassifier, folder: Path, trusted: bool
) -> dict[str, object]:
    base = encoder_of(artifact, trusted)
    encoder, tokenizer = pretrained.load_encoder(base), pretrained.load_tokenizer(base)
    assert isinstance(own.head, LinearHead)  # noqa: S101  others were refused
    module = _PlanesOnEncoder(encoder, own.pooling, own.head).eval()
    apart = company.needs_one_length(
        encoder, lambda b: module(torch.from_numpy(b.input_ids), torch.from_numpy(b.attention_mask))
    )
    _trace(module, folder / GRAPH, str(artifact.directory))
    pad_id = int(tokenizer.pad_token_id or 0)
    _write_config(encoder.config, own.label_names, pad_id, folder, own.score_kind)
    _write_tokenizer(tokenizer, own.max_length, folder, artifact)
    return {
        "base": artifact.manifest.get("base"),
        "max_length": own.max_length,
        "pad_id": pad_id,
        **({"one_length": True} if apart else {}),
    }


def _trace(module: nn.Module, path: Path, name: str) -> None:
    """Write a module of (ids, mask), both (b, t) int64, as a graph of any b and t."""
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    shapes = tuple({0: batch, 1: sequence} for _ in _INPUTS)
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (torch.tensor(_IDS), torch.tensor(_MASK)),
                dynamo=True,
                input_names=list(_INPUTS),
                output_names=["logits"],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
            assert program is not None  # noqa: S101
            program.save(str(path))
    except Exception as e:  # whatever a model's code does under torch.export
        lines = [x for x in str(e).strip().splitlines() if x] or [type(e).__name__]
        raise ArtifactError(
            f"{name}: torch {torch.__version__} cannot trace it into a graph ({lines[0][:200]}). "
            "Use it as it is, or export another method."
        ) from e


@contextmanager
def _silence() -> Iterator[None]:
    """torch tells of every package that it could also export, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with pretrained.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


# --- beside the graph -----------------------------------------------------------------------


# What transformers takes the outputs of a head for: it ends in a softmax, or in sigmoids.
_PROBLEMS: Mapping[ScoreKind, str] = {
    "logit": "single_label_classification",
    "label_logit": "multi_label_classification",
}


def _write_config(
    config: Any, names: tuple[str, ...], pad_id: int, folder: Path, kind: ScoreKind
) -> None:
    """config.json as transformers and transformers.js read it: labels, what the head ends in."""
    body = config.to_dict()
    body |= {
        "id2label": {str(i): n for i, n in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
        "problem_type": _PROBLEMS[kind],
        "pad_token_id": pad_id,
    }
    for left_out in ("num_labels", "dtype", "_name_or_path"):
        body.pop(left_out, None)
    text = json.dumps(body, indent=2, ensure_ascii=False, default=str)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _write_tokenizer(tokenizer: Any, max_length: int, folder: Path, artifact: Artifact) -> None:
    """tokenizer.json, which cuts at max_length and asks for the graph's two inputs alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ArtifactError(
            f"{artifact.directory}: its tokenizer ({type(tokenizer).__name__}) has no form that "
            "runs without transformers (tokenizer.json). Use the classifier as it is."
        )
    before = tokenizer.model_max_length
    tokenizer.model_max_length = max_length
    backend.no_padding()
    backend.enable_truncation(max_length)
    try:
        tokenizer.save_pretrained(folder)
    finally:
        backend.no_truncation()
        tokenizer.model_max_length = before
    # transformers does not save it, but reads it: BERT's would give segments, which no input takes.
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) | {"model_input_names": list(_INPUTS)}
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- TF-IDF ---------------------------------------------------------------------------------


def _write_tfidf(svm: TfidfSvm, folder: Path) -> dict[str, object]:
    """The graph from counts of terms to logits; counting them is left to who runs it.

    For vectorizer k: `term_ids_k` (b, t) int64 number the terms of vocabulary.json's part k,
    `term_counts_k` (b, t) float32 say how often each stands in a text; 0 fills up. With idf w and
    planes W: v = (1 + ln count) w[id], logits = sum_k sum_t v W[id] / |v| + b.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes: list[Any] = []
    constants = [
        numpy_helper.from_array(np.asarray(x, dtype=np.float32), n)
        for n, x in (("zero", 0.0), ("one", 1.0))
    ]
    axes = [numpy_helper.from_array(np.asarray([a]), f"axis_{a}") for a in (1, 2)]
    inputs, sums, start = [], [], 0
    planes = svm.planes.weights.T * svm.planes.temperature
    for k, v in enumerate(svm.ngrams):
        many = len(v.terms)
        constants += [
            numpy_helper.from_array(np.asarray(v.idf, dtype=np.float32), f"idf_{k}"),
            numpy_helper.from_array(planes[start : start + many].astype(np.float32), f"planes_{k}"),
        ]
        start += many
        inputs += [
            helper.make_tensor_value_info(f"term_{n}_{k}", kind, ["batch", f"terms_{k}"])
            for n, kind in (("ids", TensorProto.INT64), ("counts", TensorProto.FLOAT))
        ]
        nodes += _tfidf_nodes(helper.make_node, k, v.sublinear_tf)
        sums.append(f"sum_{k}")
    offsets = svm.planes.offsets * svm.planes.temperature
    constants.append(numpy_helper.from_array(offsets.astype(np.float32), "offsets"))
    nodes.append(helper.make_node("Sum", [*sums, "offsets"], ["logits"]))
    shape = ["batch", len(svm.label_names)]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tfidf_svm", inputs, [logits], [*constants, *axes])
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR)
    checker.check_model(model)
    save(model, folder / GRAPH)
    text = json.dumps([v.described() for v in svm.ngrams], ensure_ascii=False)
    (folder / VOCABULARY).write_text(text, encoding="utf-8")
    names = {str(i): n for i, n in enumerate(svm.label_names)}
    config = json.dumps({"model_type": "tfidf-svm", "id2label": names}, ensure_ascii=False)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")
    return {"base": None}


def _tfidf_nodes(node: Any, k: int, sublinear: bool) -> list[Any]:
    ids, counts = f"term_ids_{k}", f"term_counts_{k}"
    tf = [
        node("Greater", [counts, "zero"], [f"there_{k}"]),
        node("Where", [f"there_{k}", counts, "one"], [f"safe_{k}"]),
        node("Log", [f"safe_{k}"], [f"log_{k}"]),
        node("Add", [f"log_{k}", "one"], [f"damped_{k}"]),
        node("Where", [f"there_{k}", f"damped_{k}", "zero"], [f"tf_{k}"]),
    ]
    tf = tf if sublinear else [node("Identity", [counts], [f"tf_{k}"])]
    return [
        *tf,
        node("Gather", [f"idf_{k}", ids], [f"w_{k}"]),
        node("Mul", [f"tf_{k}", f"w_{k}"], [f"v_{k}"]),
        node("ReduceL2", [f"v_{k}", "axis_1"], [f"norm_{k}"], keepdims=1),
        node("Greater", [f"norm_{k}", "zero"], [f"some_{k}"]),
        node("Where", [f"some_{k}", f"norm_{k}", "one"], [f"length_{k}"]),
        node("Div", [f"v_{k}", f"length_{k}"], [f"unit_{k}"]),
        node("Unsqueeze", [f"unit_{k}", "axis_2"], [f"column_{k}"]),
        node("Gather", [f"planes_{k}", ids], [f"rows_{k}"], axis=0),
        node("Mul", [f"rows_{k}", f"column_{k}"], [f"each_{k}"]),
        node("ReduceSum", [f"each_{k}", "axis_1"], [f"sum_{k}"], keepdims=0),
    ]
