"""ONNX graphs as those who round them read them: constants, products, the head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = [
    "constant_products",
    "constants",
    "drop_unread",
    "head_of",
    "producers_of",
    "read_graph",
    "write_graph",
]


def read_graph(path: Path) -> Any:
    """A graph's model."""
    import onnx

    return onnx.load(path)


def write_graph(model: Any, path: Path) -> None:
    """Write a model as one file."""
    import onnx

    onnx.save(model, path)


def constants(model: Any) -> dict[str, TensorProto]:
    """A graph's constant tensors by name."""
    return {i.name: i for i in model.graph.initializer}


def constant_products(model: Any) -> list[Any]:
    """Products with a constant matrix, in the order of the graph."""
    known = constants(model)
    return [
        n
        for n in model.graph.node
        if n.op_type == "MatMul" and n.input[1] in known and len(known[n.input[1]].dims) == 2
    ]


def head_of(model: Any) -> str:
    """The last product gives the logits, and stays in float: it is small, and nothing mends it."""
    products = constant_products(model)
    return str(products[-1].name) if products else ""


def producers_of(model: Any) -> dict[str, NodeProto]:
    """The node that computes each value, by the value's name."""
    return {out: node for node in model.graph.node for out in node.output}


def drop_unread(model: Any) -> None:
    """Remove constants that no node reads any more."""
    read = {name for n in model.graph.node for name in n.input}
    for constant in [i for i in model.graph.initializer if i.name not in read]:
        model.graph.initializer.remove(constant)
