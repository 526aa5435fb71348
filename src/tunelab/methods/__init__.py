"""METHODS: the ways of adapting a base model, a row each.

A row names a typed settings class and a function `fit(task) -> Outcome`. Importing this loads no
torch: a method's `fit` imports what it trains with when it is called.
May import: settings, types, errors and the rooms below. May not import: config, trial, study, cli.
"""

from __future__ import annotations

from tunelab.methods import full, peft, svm
from tunelab.methods.method import Method, Outcome, Task

__all__ = ["METHODS", "Method", "Outcome", "Task"]

METHODS: dict[str, Method] = {m.name: m for m in (*svm.METHODS, *full.METHODS, *peft.METHODS)}
