"""tunelab: which way of fine-tuning is worth it here, at what cost, and how sure is that?

import tunelab

study = tunelab.compare("reviews.csv", methods=["svm-tfidf", "full", "lora"], seeds=3)
study.table()
classifier = tunelab.load(study.best())
classifier.predict(["a quiet, wonderful film"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunelab.core.errors import TunelabError
from tunelab.core.version import __version__

if TYPE_CHECKING:
    from tunelab.api import Study, compare, fine_tune, load, load_base, load_data
    from tunelab.evaluation import evaluate

__all__ = [
    "Study",
    "TunelabError",
    "__version__",
    "compare",
    "evaluate",
    "fine_tune",
    "load",
    "load_base",
    "load_data",
]


_FROM_API = ("Study", "compare", "fine_tune", "load", "load_data", "load_base")


def __getattr__(name: str) -> Any:
    """Import the rooms when they are first asked for: `import tunelab` alone stays instant."""
    if name in _FROM_API:
        from tunelab import api

        return getattr(api, name)
    if name == "evaluate":
        from tunelab import evaluation

        return evaluation.evaluate
    raise AttributeError(f"module 'tunelab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
