"""Graphs for OpenVINO: in float32, and rounded by nncf."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunelab.models.exported import Inputs

__all__ = [
    "OPENVINO_MODEL",
    "OPENVINO_WAYS",
    "write_float",
]

OPENVINO_MODEL = "openvino_model.xml"


def write_float(graph: Path, path: Path) -> None:
    """Write an ONNX graph as OpenVINO's, `path` and the .bin beside it."""
    _save(_graph_of(graph), path)


def _ptq(graph: Path, batches: Sequence[Inputs], path: Path) -> None:
    """Inputs and weights in int8, on scales that calibration texts set, and smoothed."""
    nncf = _nncf()
    texts = nncf.Dataset([dict(b) for b in batches])
    with contextlib.redirect_stdout(io.StringIO()):  # it draws bars
        rounded = nncf.quantize(
            _graph_of(graph),
            texts,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
    _save(rounded, path)


def _weights_alone(graph: Path, _: Sequence[Inputs], path: Path) -> None:
    """Weights in int8 by column; inputs stay in float."""
    nncf = _nncf()
    mode = nncf.CompressWeightsMode.INT8_ASYM
    with contextlib.redirect_stdout(io.StringIO()):
        rounded = nncf.compress_weights(_graph_of(graph), mode=mode)
    _save(rounded, path)


# What is tried, in this order; each writes the graph of one way to round.
OPENVINO_WAYS: dict[str, Callable[[Path, Sequence[Inputs], Path], None]] = {
    "ptq": _ptq,
    "weights only": _weights_alone,
}


def _graph_of(graph: Path) -> Any:
    import openvino

    # Not openvino.convert_model, which reports its use to its makers.
    return openvino.Core().read_model(graph)


def _save(model: Any, path: Path) -> None:
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


def _nncf() -> Any:
    # Left to itself it reports its use to its makers.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf
