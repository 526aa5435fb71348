"""tunelab: which way of fine-tuning is worth it here, at what cost, and how sure is that?

import tunelab

study = tunelab.compare("reviews.csv", methods=["svm-tfidf", "full", "lora"], seeds=3)
study.table()
classifier = tunelab.load(study.best())
classifier.predict(["a quiet, wonderful film"])
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from tunelab.core.errors import TunelabError
from tunelab.core.version import __version__

if TYPE_CHECKING:
    from tunelab.api import Study, compare, fine_tune, load_base, load_data
    from tunelab.classifiers import familiarity, load
    from tunelab.estimator import TextClassifier
    from tunelab.evaluation import evaluate
    from tunelab.exports import export
    from tunelab.servers import serve
    from tunelab.suggesting import suggest

__all__ = [
    "Study",
    "TextClassifier",
    "TunelabError",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "familiarity",
    "fine_tune",
    "load",
    "load_base",
    "load_data",
    "serve",
    "suggest",
]


# How often a thread of OpenMP looks for work before it sleeps; read when torch loads its runtime,
# which would look 300,000 times, for 15 ms. Where others use the cores too, a thread that looks
# keeps away the one that it waits for: one text took up to 80 times as long (docs/log.md).
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "3000"

# Where each name is, and so what is imported when it is first asked for.
_MODULES = {
    **dict.fromkeys(("Study", "compare", "fine_tune", "load_data", "load_base"), "api"),
    **dict.fromkeys(("load", "familiarity"), "classifiers"),
    "TextClassifier": "estimator",
    "evaluate": "evaluation",
    "export": "exports",
    "serve": "servers",
    "suggest": "suggesting",
}


def __getattr__(name: str) -> Any:
    """Import the rooms when they are first asked for: `import tunelab` alone stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tunelab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tunelab.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
