"""ONNX graphs in int8: a ladder of ways to round, from many products in few bits to few."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunelab.models.exported import Inputs

if TYPE_CHECKING:
    from onnx import TensorProto

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
        model = _read_graph(source)
        _gemms_apart(model)
        _round_tables(model)
        _write_graph(model, source)
        return Rounding(source, batches, folder, _activations(model, batches))


def _dynamic(r: Rounding, path: Path) -> None:
    """Inputs of products in int8 as they come, weights in int8 by column."""
    _quantise_dynamic(r.source, path, spared=())


def _smoothed(r: Rounding, path: Path) -> None:
    """As `dynamic`, after outliers of the inputs have been moved into the weights."""
    model = _read_graph(r.source)
    _smooth(model, r.seen)
    _write_graph(model, path)
    _quantise_dynamic(path, path, spared=())


def _spared(r: Rounding, path: Path) -> None:
    """As `smoothed`, with the quarter of the products that round worst left in float."""
    model = _read_graph(r.source)
    errors = _smooth(model, r.seen)
    worst = sorted(errors, key=errors.__getitem__, reverse=True)
    _write_graph(model, path)
    _quantise_dynamic(path, path, spared=worst[: round(_SPARED * len(worst))])


def _static(r: Rounding, path: Path) -> None:
    """Inputs in int8 on scales that calibration texts set once, weights in int8 by column."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = _read_graph(r.source)
    _smooth(model, r.seen)
    _write_graph(model, path)
    with _told_nothing():
        quantize_static(
            path,
            path,
            _reader(r.batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[_head(model)],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def _weights_only(r: Rounding, path: Path) -> None:
    """Weights in int8 in blocks of 32, each with its scale; inputs stay in float."""
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = _read_graph(r.source)
    with _told_nothing():
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=8,
            block_size=32,
            is_symmetric=True,
            nodes_to_exclude=[_head(model)],
            quant_format=QuantFormat.QOperator,
        )
        quantizer.process()
    _write_graph(quantizer.model.model, path)


# What is tried, in this order; each writes the graph of one way to round.
ONNX_WAYS: dict[str, Callable[[Rounding, Path], None]] = {
    "static": _static,
    "dynamic": _dynamic,
    "smoothed": _smoothed,
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
            nodes_to_exclude=[*spared, _head(_read_graph(source))],
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


def _read_graph(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _write_graph(model: Any, path: Path) -> None:
    import onnx

    onnx.save(model, path)


def _constants(model: Any) -> dict[str, TensorProto]:
    return {i.name: i for i in model.graph.initializer}


def _constant_products(model: Any) -> list[Any]:
    """Products with a constant matrix, in the order of the graph."""
    known = _constants(model)
    return [
        n
        for n in model.graph.node
        if n.op_type == "MatMul" and n.input[1] in known and len(known[n.input[1]].dims) == 2
    ]


def _head(model: Any) -> str:
    """The last product gives the logits, and stays in float: it is small, and nothing mends it."""
    products = _constant_products(model)
    return str(products[-1].name) if products else ""


def _gemms_apart(model: Any) -> None:
    """Each Gemm as a product and a sum, as the tools want them; every node with a name."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).replace_gemm_with_matmul()
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"


def _round_tables(model: Any) -> None:
    """Embeddings in int8 with a scale by row: a token keeps its direction, however short it is."""
    from onnx import TensorProto, helper, numpy_helper

    known = _constants(model)
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
        if f"{table.name}_int8" not in _constants(model):
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
    _drop_unread(model)


def _drop_unread(model: Any) -> None:
    read = {name for n in model.graph.node for name in n.input}
    for constant in [i for i in model.graph.initializer if i.name not in read]:
        model.graph.initializer.remove(constant)


def _activations(model: Any, batches: Sequence[Inputs]) -> dict[str, SeenInput]:
    """What goes into each product on the calibration texts, by name."""
    import onnxruntime
    from onnx import helper

    names = list(dict.fromkeys(n.input[0] for n in _constant_products(model)))
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


def _smooth(model: Any, seen: dict[str, SeenInput]) -> dict[str, float]:
    """Divide products' inputs by s and multiply their weights with it: nothing changes but where
    outliers are. Gives each product's error once rounded, as a share of what it computes.
    """
    from onnx import helper, numpy_helper

    known, head = _constants(model), _head(model)
    by_input: dict[str, list[Any]] = {}
    for node in _constant_products(model):
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
    _drop_unread(model)
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
