"""One exception tree.

    TunelabError
    ├── InputError(ValueError)        what the user gave cannot be used: exit code 2
    │   ├── DataError                 a file, a column, a label, a row
    │   ├── ConfigError               a config file, a flag, a setting
    │   ├── ModelError                a base model: not found, wrong family, wrong head
    │   └── ArtifactError             a saved classifier: not one, incomplete, altered
    └── TrialError(RuntimeError)      a trial failed while it ran: exit code 1

Every message is one line that names the thing, what was expected, what was found and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "InputError",
    "ModelError",
    "TrialError",
    "TunelabError",
    "suggest",
]


class TunelabError(Exception):
    """Root of the tree: catch this to catch everything that tunelab raises on purpose."""


class InputError(TunelabError, ValueError):
    """What the user gave cannot be used. The command line exits with 2."""


class DataError(InputError):
    """A data source, a column, a label or a row cannot be used."""


class ConfigError(InputError):
    """A config file, a flag or a setting cannot be used."""


class ModelError(InputError):
    """A base model cannot be found or cannot do what was asked."""


class ArtifactError(InputError):
    """A saved classifier cannot be loaded."""


class TrialError(TunelabError, RuntimeError):
    """A trial failed while it ran. The command line exits with 1."""


def suggest(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """Return " Did you mean 'x'? <what>: a, b, c." for a name that is not among `known`.

    A long list of names is left out where one of them is near.

    >>> suggest("lable", ["text", "label"], what="Columns")
    " Did you mean 'label'? Columns: text, label."
    """
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    hint = ""
    if near:
        original = next(n for n in names if n.lower() == near[0])
        hint = f" Did you mean {original!r}?"
        if len(names) > 12:
            return hint
    return f"{hint} {what}: {', '.join(names)}."
