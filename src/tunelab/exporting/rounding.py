"""ONNX graphs in int8: a ladder of ways to round, from many products in few bits to few."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunelab.exporting import two_parts
from tunelab.exporting.graph_parts import (
    constant_products,
    constants,
    drop_unread,
    head_of,
    producers_of,
    read_graph,
    write_graph,
)
from tunelab.models.exported import Inputs

if TYPE_CHECKING:
    pass

__all__ = [
    "QUANTISED",
    "ONNX_WAYS",
    "Rounding",
]

QUANTISED = "onnx/model_quantized.onnx"
Floats32 = NDArray[np.float32]

# s_j = max|x_j|^a / max|w_j|^(1-a) (SmoothQuant, Xiao et al. 2023): of these a, each input takes
# the one that rounds best on the calibration texts.
_ALPHAS = (0.5, 0.65, 0.8, 0.9, 1.0)
# Less than this share of the error gained is not worth a multiplication.
_WORTH_SMOOTHING = 0.1
# Rows of each product's input that are kept to measure errors on.
_ROWS_KEPT = 512
# Tables of fewer rows (segments) weigh nothing.
_ROWS_OF_A_TABLE = 32
# Where a product's inputs are parted by their range: so many columns, of all, have the largest.
_BANDS = (1 / 384, 1 / 48, 1 / 6)
# Of the products that round worst, so many stay in float on the rung that spares some.
_SPARED = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class SeenInput:
    """What went into a product: the `largest` magnitude by column, (width,), and some `rows`."""

    largest: Floats32
    rows: Floats32


@dataclass(frozen=True, slots=True, eq=False)
class Rounding:
    """A float graph, ready to be rounded, and what it was seen to compute on calibration texts.

    `source` has constants folded, products apart from sums, and its embeddings in int8 by row.
    Sums before a LayerNormalization are `Sum`: onnxruntime computes one fused node of both in
    twice the time of the two.
    """

    source: Path
    batches: Sequence[Inputs]
    folder: Path
    seen: dict[str, SeenInput]

    @staticmethod
    def of(graph: Path, batches: Sequence[Inputs], folder: Path) -> Rounding:
        """Prepare a float graph; `batches` are inputs of calibration texts."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        source = folder / "source.onnx"
        with _told_nothing():
            # Its symbolic shapes do not know what torch writes; nothing here needs them.
            quant_pre_process(graph, source, skip_symbolic_shape=True)
        model = read_graph(source)
        _gemms_apart(model)
        _sums_apart(model)
        _round_tables(model)
        write_graph(model, source)
        return Rounding(source, batches, folder, _activations(model, batches))


def _dynamic(r: Rounding, path: Path) -> None:
    """Inputs of products in int8 as they come, weights in int8 by column."""
    _quantise_dynamic(r.source, path, spared=())


def _smoothed(r: Rounding, path: Path) -> None:
    """As `dynamic`, after outliers of the inputs have been moved into the weights."""
    model = read_graph(r.source)
    _smooth(model, r.seen)
    write_graph(model, path)
    _quantise_dynamic(path, path, spared=())


def _banded(r: Rounding, path: Path) -> None:
    """As `smoothed`, with what follows a GELU in parts of like range, each on its own scale."""
    model = read_graph(r.source)
    _smooth(model, _part_by_range(model, r.seen))
    write_graph(model, path)
    _quantise_dynamic(path, path, spared=())


def _in_two_parts(r: Rounding, path: Path) -> None:
    """Inputs as two int8 numbers, 16 bits in all; what follows a GELU as one, in parts of like
    range; weights in int8 by column, rounded by GPTQ.
    """
    model = read_graph(r.source)
    of_gelus = set(_part_by_range(model, r.seen)) - set(r.seen)
    two_parts.round_in_two_parts(model, r.batches, of_gelus, path)


def _spared(r: Rounding, path: Path) -> None:
    """As `banded`, with the quarter of the products that round worst left in float."""
    model = read_graph(r.source)
    errors = _smooth(model, _part_by_range(model, r.seen))
    worst = sorted(errors, key=errors.__getitem__, reverse=True)
    write_graph(model, path)
    _quantise_dynamic(path, path, spared=worst[: round(_SPARED * len(worst))])


def _static(r: Rounding, path: Path) -> None:
    """Inputs in int8 on scales that calibration texts set once, weights in int8 by column."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = read_graph(r.source)
    _smooth(model, r.seen)
    write_graph(model, path)
    with _told_nothing():
        quantize_static(
            path,
            path,
            _reader(r.batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[head_of(model)],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def _weights_only(r: Rounding, path: Path) -> None:
    """Weights in int8 in blocks of 32, each with its scale; inputs stay in float."""
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = read_graph(r.source)
    with _told_nothing():
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=8,
            block_size=32,
            is_symmetric=True,
            nodes_to_exclude=[head_of(model)],
            quant_format=QuantFormat.QOperator,
        )
        quantizer.process()
    write_graph(quantizer.model.model, path)


# What is tried, in this order; each writes the graph of one way to round.
ONNX_WAYS: dict[str, Callable[[Rounding, Path], None]] = {
    "static": _static,
    "dynamic": _dynamic,
    "smoothed": _smoothed,
    "banded": _banded,
    "two parts": _in_two_parts,
    "fewer layers": _spared,
    "weights only": _weights_only,
}


# --- onnxruntime's own tools ----------------------------------------------------------------


def _quantise_dynamic(source: Path, path: Path, spared: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _told_nothing():
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[*spared, head_of(read_graph(source))],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def _reader(batches: Sequence[Inputs]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.waiting = iter([dict(b) for b in batches])

        def get_next(self) -> Any:
            return next(self.waiting, None)

    return Reader()


@contextlib.contextmanager
def _told_nothing() -> Iterator[None]:
    """onnxruntime's tools advise what has been done, and print what they collect."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- the graph ------------------------------------------------------------------------------


def _gemms_apart(model: Any) -> None:
    """Each Gemm as a product and a sum, as the tools want them; every node with a name."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).replace_gemm_with_matmul()
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"


def _sums_apart(model: Any) -> None:
    """Sums that a LayerNormalization reads under a name that onnxruntime fuses with nothing."""
    producers = producers_of(model)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            before = producers.get(node.input[0])
            if before is not None and before.op_type == "Add":
                before.op_type = "Sum"


def _round_tables(model: Any) -> None:
    """Embeddings in int8 with a scale by row: a token keeps its direction, however short it is."""
    from onnx import TensorProto, helper, numpy_helper

    known = constants(model)
    for node in list(model.graph.node):
        table = known.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.dims[0] < _ROWS_OF_A_TABLE:
            continue
        if table.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(table)
        scale = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / 127
        rounded = np.round(values / scale).astype(np.int8)
        name, out = node.name, node.output[0]
        ids = node.input[1]
        if f"{table.name}_int8" not in constants(model):
            model.graph.initializer.extend([
                numpy_helper.from_array(rounded, f"{table.name}_int8"),
                numpy_helper.from_array(scale.astype(np.float32), f"{table.name}_scale"),
            ])  # fmt: skip
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        for step in (
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [out], f"{name}_mul"),
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], f"{name}_cast",
                             to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table.name}_scale", ids], [f"{name}_scale"],
                             f"{name}_gather_scale", axis=0),
            helper.make_node("Gather", [f"{table.name}_int8", ids], [f"{name}_int8"],
                             f"{name}_gather_int8", axis=0),
        ):  # fmt: skip
            model.graph.node.insert(place, step)
    drop_unread(model)


def _activations(model: Any, batches: Sequence[Inputs]) -> dict[str, SeenInput]:
    """What goes into each product on the calibration texts, by name."""
    import onnxruntime
    from onnx import helper

    names = list(dict.fromkeys(n.input[0] for n in constant_products(model)))
    asked = type(model)()
    asked.CopyFrom(model)
    asked.graph.output.extend(helper.make_tensor_value_info(n, 1, None) for n in names)
    session = onnxruntime.InferenceSession(
        asked.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    share = max(1, _ROWS_KEPT // max(1, len(batches)))
    seen: dict[str, SeenInput] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            largest, some = np.abs(rows).max(axis=0), rows[:: -(-len(rows) // share)]
            if name in seen:
                largest = np.maximum(largest, seen[name].largest)
                some = np.concatenate([seen[name].rows, some])
            seen[name] = SeenInput(largest, some)
    return seen


@dataclass(frozen=True, slots=True, eq=False)
class _GeluBetween:
    """gelu(x W + b) V, each step read by the next alone: the nodes, and W, b and V by name."""

    into: Any
    add: Any
    gelu: Any
    out: Any
    bias: str


def _gelus_between(model: Any) -> Iterator[_GeluBetween]:
    """Every place of a graph where a GELU stands between two constant products."""
    known, producers = constants(model), producers_of(model)
    reads = Counter(name for node in model.graph.node for name in node.input)
    products = {n.name for n in constant_products(model)}
    for out in constant_products(model):
        gelu = producers.get(out.input[0])
        if gelu is None or gelu.op_type != "Gelu":
            continue
        add = producers.get(gelu.input[0])
        if add is None or add.op_type != "Add":
            continue
        bias = [x for x in add.input if x in known and len(known[x].dims) == 1]
        into = [producers[x] for x in add.input if x in producers]
        if len(bias) != 1 or len(into) != 1 or into[0].name not in products:
            continue
        if all(reads[n.output[0]] == 1 for n in (into[0], add, gelu)):
            yield _GeluBetween(into[0], add, gelu, out, bias[0])


def _part_by_range(model: Any, seen: Mapping[str, SeenInput]) -> dict[str, SeenInput]:
    """gelu(x W + b) V as a sum over parts of its columns, those of like largest magnitude together.

    A product's inputs share one scale: of 1,536 columns a few are often five times as large as all
    others, which then have a fifth of the steps. Gives what each product was seen to read, now.
    """
    from onnx import helper, numpy_helper

    known, fresh, node = constants(model), dict(seen), helper.make_node
    for place in list(_gelus_between(model)):
        name, x = place.out.name, place.into.input[0]
        w, b, v = (
            numpy_helper.to_array(known[n])
            for n in (place.into.input[1], place.bias, place.out.input[1])
        )
        read = fresh.pop(place.out.input[0])
        cuts = sorted({max(1, round(share * len(v))) for share in _BANDS})
        steps, parts = [], []
        for k, columns in enumerate(np.split(np.argsort(-read.largest), cuts)):
            if not len(columns):
                continue
            part = f"{name}_part_{k}"
            for suffix, values in (("w", w[:, columns]), ("b", b[columns]), ("v", v[columns])):
                constant = numpy_helper.from_array(np.ascontiguousarray(values), f"{part}_{suffix}")
                model.graph.initializer.append(constant)
            gelu = type(place.gelu)()
            gelu.CopyFrom(place.gelu)
            gelu.name, gelu.input[0], gelu.output[0] = f"{part}_gelu", f"{part}_add", f"{part}_in"
            steps += [
                node("MatMul", [x, f"{part}_w"], [f"{part}_product"], f"{part}_first"),
                node("Add", [f"{part}_product", f"{part}_b"], [f"{part}_add"], f"{part}_bias"),
                gelu,
                node("MatMul", [f"{part}_in", f"{part}_v"], [f"{part}_out"], f"{part}_second"),
            ]
            parts.append(f"{part}_out")
            fresh[f"{part}_in"] = SeenInput(read.largest[columns], read.rows[:, columns])
        steps.append(node("Sum", parts, [place.out.output[0]], f"{name}_parts"))
        at = list(model.graph.node).index(place.out)
        for step in reversed(steps):
            model.graph.node.insert(at, step)
        for old in (place.into, place.add, place.gelu, place.out):
            model.graph.node.remove(old)
    drop_unread(model)
    return fresh


def _smooth(model: Any, seen: Mapping[str, SeenInput]) -> dict[str, float]:
    """Divide products' inputs by s and multiply their weights with it: nothing changes but where
    outliers are. Gives each product's error once rounded, as a share of what it computes.
    """
    from onnx import helper, numpy_helper

    known, head = constants(model), head_of(model)
    by_input: dict[str, list[Any]] = {}
    for node in constant_products(model):
        if node.name != head:
            by_input.setdefault(node.input[0], []).append(node)
    errors: dict[str, float] = {}
    for name, nodes in by_input.items():
        weights = [numpy_helper.to_array(known[n.input[1]]) for n in nodes]
        s, by_node = _best_scales(seen[name], weights)
        errors |= zip((n.name for n in nodes), by_node, strict=True)
        if s is None:
            continue
        model.graph.initializer.append(numpy_helper.from_array(1 / s, f"{name}_inverse"))
        places = [list(model.graph.node).index(n) for n in nodes]
        model.graph.node.insert(min(places), helper.make_node(
            "Mul", [name, f"{name}_inverse"], [f"{name}_smooth"], f"{name}_smoothing"
        ))  # fmt: skip
        for node, w in zip(nodes, weights, strict=True):
            fresh = f"{node.name}_smooth_weight"  # a matrix may be shared
            model.graph.initializer.append(numpy_helper.from_array(w * s[:, None], fresh))
            node.input[0], node.input[1] = f"{name}_smooth", fresh
    drop_unread(model)
    return errors


def _best_scales(
    seen: SeenInput, weights: Sequence[Floats32]
) -> tuple[Floats32 | None, list[float]]:
    """The scales (width,) that round an input's products best, None for none, and their errors."""
    plain = [_rounding_error(seen.rows, w) for w in weights]
    largest = np.maximum.reduce([np.abs(w).max(axis=1) for w in weights])
    best: tuple[Floats32 | None, list[float]] = (None, plain)
    limit = (1 - _WORTH_SMOOTHING) * sum(plain)
    for alpha in _ALPHAS:
        s = np.maximum(seen.largest, 1e-5) ** alpha / np.maximum(largest, 1e-5) ** (1 - alpha)
        s = (s / np.exp(np.log(s).mean())).astype(np.float32)
        errors = [_rounding_error(seen.rows / s, w * s[:, None]) for w in weights]
        if sum(errors) < limit:
            best, limit = (s, errors), sum(errors)
    return best


def _rounding_error(x: Floats32, w: Floats32) -> float:
    """|round(x) round(w) - x w| / |x w| with x in 8 bits on one scale, w in 8 by column."""
    step = max(float(x.max()) - min(float(x.min()), 0.0), 1e-12) / 255
    column = np.maximum(np.abs(w).max(axis=0), 1e-12) / 127
    exact = x @ w
    rounded = (np.round(x / step) * step) @ (np.round(w / column) * column)
    return float(np.linalg.norm(rounded - exact) / max(float(np.linalg.norm(exact)), 1e-12))
