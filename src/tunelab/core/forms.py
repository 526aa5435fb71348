"""The forms that a classifier can be exported to: names and needs, known before anything is loaded;
and what a study keeps of its winner's exports.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tunelab.core.errors import suggest
from tunelab.core.extras import install_line

__all__ = [
    "AS_TRAINED",
    "FORMS",
    "Form",
    "StudyExports",
    "WinnersForm",
    "exports_from_json",
    "form_fault",
    "lacking_packages",
]


@dataclass(frozen=True, slots=True)
class Form:
    """The packages that making a form needs, and the extra of tunelab that brings them."""

    packages: tuple[str, ...] = ()
    extra: str = "export"


FORMS: dict[str, Form] = {
    "merged": Form(),
    "with-base": Form(),
    "onnx": Form(("onnx", "onnxscript", "onnxruntime")),
    "int8": Form(("onnx", "onnxscript", "onnxruntime")),
    "openvino": Form(("onnx", "onnxscript", "openvino"), "openvino"),
    "openvino-int8": Form(("onnx", "onnxscript", "openvino", "nncf"), "openvino"),
}


def form_fault(name: str) -> str | None:
    """What is wrong with a form's name; None where there is such a form."""
    if name in FORMS:
        return None
    return f"Export target {name!r} is unknown.{suggest(name, FORMS, what='Expected one of')}"


def lacking_packages(name: str) -> str | None:
    """Why a form cannot be made here, with what to install; None where it can."""
    form = FORMS[name]
    absent = [n for n in form.packages if importlib.util.find_spec(n) is None]
    if not absent:
        return None
    return (
        f"Export to {name}: needs {' and '.join(absent)}, which this environment lacks. Install: "
        f"{install_line(form.extra)}"
    )


# --- of a study's winner --------------------------------------------------------------------

AS_TRAINED = "as trained"


@dataclass(frozen=True, slots=True)
class WinnersForm:
    """A study's best classifier in one form: its figures, and whether its predictions hold.

    `form`: a name of `FORMS`, or AS_TRAINED for the classifier itself. `folder`: where it lies in
    the study; None where it was refused. `bytes` of its files, `texts_per_second` of many texts,
    `milliseconds` of one alone; None where it could not be made. `sentence`: how its predictions
    compare; `fault`: why they do not hold, or why it could not be made; None where they do.
    """

    form: str
    folder: str | None
    bytes: int | None = None
    texts_per_second: float | None = None
    milliseconds: float | None = None
    changed: int | None = None
    texts: int | None = None
    sentence: str = ""
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class StudyExports:
    """What `compare --export` made: of which trial (its id and its method's label), judged on what
    (for people), and its forms, the classifier as it was trained first.
    """

    trial: str
    label: str
    described: str
    forms: tuple[WinnersForm, ...]

    def to_json(self) -> dict[str, object]:
        """As exports.json has it."""
        return asdict(self)


def exports_from_json(value: Mapping[str, Any]) -> StudyExports:
    """What `to_json` gave."""
    known = {f.name for f in fields(WinnersForm)}
    forms = [WinnersForm(**{k: v for k, v in f.items() if k in known}) for f in value["forms"]]
    return StudyExports(value["trial"], value["label"], value["described"], tuple(forms))
