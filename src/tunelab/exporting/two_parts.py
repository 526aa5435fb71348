"""Products in int8 whose inputs are two int8 numbers, a coarse one and what it leaves: 16 bits in
all, by the same weights twice. Weights are rounded one row after the other (GPTQ).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunelab.exporting.graph_parts import (
    constant_products,
    constants,
    drop_unread,
    head_of,
    write_graph,
)
from tunelab.models.exported import Inputs

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["gptq_rounded", "round_in_two_parts"]

# The fine part's step, of the coarse one's: 220 of them, not 254, as the coarse part is rounded to
# its zero point too.
_FINE = 1 / 220
# Wider inputs (rows of the matrix) are not worth the memory of their products with each other.
_WIDEST = 4096
_DAMPING = 0.01


def round_in_two_parts(
    model: Any, batches: Sequence[Inputs], in_one: Collection[str], path: Path
) -> None:
    """Write a model with every constant product but the head's in int8; `batches` calibrate.

    `in_one`: values (by name) that products read as one int8 number, as they are narrow in range.
    """
    from onnx import numpy_helper

    grams = _products_of_inputs(model, batches)
    known, head, parted = constants(model), head_of(model), set[str]()
    for name, value in (("middle", np.uint8(128)), ("fine", np.float32(_FINE))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for product in constant_products(model):
        if product.name == head:
            continue
        x = product.input[0]
        weights = numpy_helper.to_array(known[product.input[1]])
        scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
        rounded = gptq_rounded(weights, scale, grams.get(x))
        for suffix, values in (("int8", rounded), ("scale", scale.astype(np.float32))):
            constant = numpy_helper.from_array(values, f"{product.name}_{suffix}")
            model.graph.initializer.append(constant)
        parts = ("coarse",) if x in in_one else ("coarse", "fine")
        steps = [*([] if x in parted else _parting(x, parts)), *_products_of(product, parts)]
        parted.add(x)
        at = list(model.graph.node).index(product)
        model.graph.node.remove(product)
        for step in reversed(steps):
            model.graph.node.insert(at, step)
    drop_unread(model)
    write_graph(model, path)


def _parting(x: str, parts: Sequence[str]) -> list[NodeProto]:
    """x = coarse (with its scale and zero point) + fine (with `fine` of that scale, around 128)."""
    from onnx import helper

    node = helper.make_node
    coarse = [f"{x}_coarse", f"{x}_coarse_scale", f"{x}_coarse_zero"]
    rounding = node("DynamicQuantizeLinear", [x], coarse, f"{x}_round")
    if "fine" not in parts:
        return [rounding]
    return [
        rounding,
        node("DequantizeLinear", coarse, [f"{x}_known"], f"{x}_again"),
        node("Sub", [x, f"{x}_known"], [f"{x}_left"], f"{x}_leave"),
        node("Mul", [coarse[1], "fine"], [f"{x}_fine_scale"], f"{x}_finer"),
        node(
            "QuantizeLinear",
            [f"{x}_left", f"{x}_fine_scale", "middle"],
            [f"{x}_fine"],
            f"{x}_round_left",
        ),
    ]


def _products_of(product: Any, parts: Sequence[str]) -> list[NodeProto]:
    """The product of each part with the same int8 matrix, and their sum, in float."""
    from onnx import TensorProto, helper

    node, name, x = helper.make_node, product.name, product.input[0]
    steps = []
    zeros = {"coarse": f"{x}_coarse_zero", "fine": "middle"}
    for part in parts:
        p, zero = f"{name}_{part}", zeros[part]
        steps += [
            node("MatMulInteger", [f"{x}_{part}", f"{name}_int8", zero], [f"{p}_int32"], p),
            node("Cast", [f"{p}_int32"], [f"{p}_float"], f"{p}_cast", to=TensorProto.FLOAT),
            node("Mul", [f"{x}_{part}_scale", f"{name}_scale"], [f"{p}_scale"], f"{p}_scales"),
            node("Mul", [f"{p}_float", f"{p}_scale"], [f"{p}_out"], f"{p}_scaled"),
        ]
    outs = [f"{name}_{part}_out" for part in parts]
    return [*steps, node("Sum", outs, [product.output[0]], f"{name}_sum")]


def gptq_rounded(
    weights: NDArray[np.float32], scale: NDArray[np.float32], gram: NDArray[np.float32] | None
) -> NDArray[np.int8]:
    """W / scale in int8, (rows, columns), with what rounding a row does to x W made good by the
    rows that are still to be rounded (GPTQ, Frantar et al. 2023), given `gram` = X^T X of inputs.

    None: each number by itself.
    """
    if gram is None:
        return np.clip(np.round(weights / scale), -127, 127).astype(np.int8)
    h = gram.astype(np.float64)
    order = np.argsort(-np.diag(h), kind="stable")
    h, w = h[order][:, order], weights[order].astype(np.float64)
    h[np.diag_indices_from(h)] += _DAMPING * np.diag(h).mean() + 1e-9
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    out, step = np.empty(weights.shape, np.int8), 128
    for start in range(0, len(w), step):
        stop = min(start + step, len(w))
        errors = np.empty((stop - start, w.shape[1]))
        for k in range(start, stop):
            rounded = np.clip(np.round(w[k] / scale), -127, 127)
            out[order[k]] = rounded
            errors[k - start] = (w[k] - rounded * scale) / upper[k, k]
            w[k + 1 : stop] -= np.outer(upper[k, k + 1 : stop], errors[k - start])
        w[stop:] -= upper[start:stop, stop:].T @ errors
    return out


def _products_of_inputs(model: Any, batches: Sequence[Inputs]) -> Mapping[str, NDArray[np.float32]]:
    """X^T X of what goes into each product on the calibration texts, by name, without padding."""
    import onnxruntime
    from onnx import helper

    known = constants(model)
    names = [
        n.input[0]
        for n in constant_products(model)
        if known[n.input[1]].dims[0] <= _WIDEST and n.name != head_of(model)
    ]
    names = list(dict.fromkeys(names))
    asked = type(model)()
    asked.CopyFrom(model)
    asked.graph.output.extend(helper.make_tensor_value_info(n, 1, None) for n in names)
    session = onnxruntime.InferenceSession(
        asked.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sums: dict[str, NDArray[np.float32]] = {}
    for batch in batches:
        there = np.asarray(batch["attention_mask"]).reshape(-1) > 0
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            rows = rows[there] if len(rows) == len(there) else rows
            sums[name] = sums.get(name, np.float32(0)) + rows.T @ rows
    return sums
