"""Whether what was loaded is what its files say: no tensor random, none left over, none reshaped.

transformers makes up what its files lack, says so in a log that nobody reads, and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypedDict

from tunelab.core.errors import ModelError, TunelabError
from tunelab.models import anatomy
from tunelab.models.families import FAMILIES

__all__ = [
    "faults_of_whole",
    "lacks",
    "loadable",
    "refuse_incomplete",
    "refuse_other_type",
]


# Last parts of the names of what older versions of transformers saved and newer ones compute.
_COMPUTED = frozenset({"position_ids", "token_type_ids", "masked_bias", "inv_freq"})
_SAVE = "Give a config.json and weights that were saved together"


@contextmanager
def loadable(name: str) -> Iterator[None]:
    """Say in one line that transformers cannot load a model, and why."""
    try:
        yield
    except (TunelabError, MemoryError):
        raise
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        if "out of memory" in reason.lower() or "can't allocate" in reason.lower():
            raise
        import transformers

        raise ModelError(
            f"Model {name}: transformers {transformers.__version__} cannot load it "
            f"({type(e).__name__}: {reason.rstrip('.')}). Install what it names, change its "
            "config.json, or give another base."
        ) from e


def refuse_other_type(name: str, config: Any) -> None:
    """Refuse weights that were saved by another architecture than config.json names now.

    A model with code of its own may name what it is made from.
    """
    import transformers

    if not type(config).__module__.startswith("transformers."):
        return
    for said in getattr(config, "architectures", None) or ():
        saved_by = getattr(getattr(transformers, str(said), None), "config_class", None)
        theirs = getattr(saved_by, "model_type", None)
        if theirs and theirs != config.model_type and not _are_kin(theirs, config.model_type):
            raise ModelError(
                f"Model {name}: its config.json says model_type {config.model_type!r}, but its "
                f"architecture {said} is of the type {theirs!r}. {_SAVE}."
            )


class LoadingInfo(TypedDict):
    """What transformers says of a model's tensors after it read the files (output_loading_info).

    Of mismatched ones the name, the shape in the files and the shape by the config.
    """

    missing_keys: Iterable[str]
    unexpected_keys: Iterable[str]
    mismatched_keys: Iterable[tuple[str, Sequence[int], Sequence[int]]]


def _are_kin(one: str, other: str) -> bool:
    """Whether two types are one but for the names of their classes."""

    def bare(model_type: str) -> Any:
        family = FAMILIES.get(model_type)
        if family is None or family.anatomy.layer is None:
            return model_type
        layer = replace(family.anatomy.layer, kind="")
        return replace(family, anatomy=replace(family.anatomy, layer=layer))

    return bool(bare(one) == bare(other))


def lacks(model: Any, info: LoadingInfo) -> list[str]:
    """Tensors that must be in a base's files and are not, or have another shape there.

    A head and what feeds it alone (a pooler) may be new: everything else may not.
    """
    encoder = anatomy.encoder_in(model)
    within = "" if encoder is None else f"{model.base_model_prefix}."
    missing = [str(k) for k in info["missing_keys"]]
    reshaped = [str(k[0]) for k in info["mismatched_keys"]]
    return sorted(
        k for k in (*missing, *reshaped) if k.startswith(within) and "pooler" not in k.split(".")
    )


def refuse_incomplete(name: str, model: Any, info: LoadingInfo) -> None:
    """Raise ModelError where part of a base would be random, or part of its files is left over."""
    lacking = lacks(model, info)
    shapes = {str(k[0]): tuple(map(tuple, k[1:3])) for k in info["mismatched_keys"]}
    if lacking:
        first = lacking[0]
        if first in shapes:
            said = "{} in its files and {} by its config".format(*map(list, shapes[first]))
            raise ModelError(f"Model {name}: {first} is {said}. {_SAVE}.")
        other = sorted(map(str, info["unexpected_keys"]))
        there = f"; they hold {other[0]}, which has no place in it" if other else ""
        raise ModelError(
            f"Model {name}: {len(lacking)} of its tensors {'is' if len(lacking) == 1 else 'are'} "
            f"not in its files and would be random, the first is {first}{there}. {_SAVE}."
        )
    left = _layers_left_over(model, info)
    if left:
        raise ModelError(
            f"Model {name}: its files hold layers that its config.json does not count "
            f"({left[0]}), which would be left out. {_SAVE}."
        )


def _layers_left_over(model: Any, info: LoadingInfo) -> list[str]:
    """Tensors in the files that are those of a further layer, by their names."""
    prefix = f"{model.base_model_prefix}."

    def pattern(key: str) -> str:
        return re.sub(r"\.\d+(?=\.)", ".#", key.removeprefix(prefix))

    there = {pattern(k) for k in model.state_dict() if pattern(k) != k.removeprefix(prefix)}
    return sorted(k for k in map(str, info["unexpected_keys"]) if pattern(k) in there)


def faults_of_whole(info: LoadingInfo) -> list[str]:
    """What is wrong with a whole classifier as it was loaded: a line for each tensor.

    What older versions saved beside is no fault: a pooler that nothing reads, and tables that are
    computed now.
    """

    def has_place(key: str) -> bool:
        parts = key.split(".")
        return "pooler" in parts or parts[-1] in _COMPUTED

    return [
        *(f"{key} is missing" for key in sorted(info["missing_keys"])),
        *(f"{k} has no place" for k in sorted(info["unexpected_keys"]) if not has_place(k)),
        *(f"{key} has another shape" for key in sorted(k[0] for k in info["mismatched_keys"])),
    ]
