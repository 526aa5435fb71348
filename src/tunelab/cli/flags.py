"""Flags that several verbs share, and how settings of methods become flags."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from tunelab.study.file import StudyKey

__all__ = [
    "FlagCommand",
    "StudyCommand",
    "data_flags",
    "study_flags",
    "take_study_keys",
]


def study_flags(
    *names: str, group: str | None = None, helps: Mapping[str, str] | None = None
) -> Callable[[Any], Any]:
    """Stand for the flags of study keys: those named, those of a group, or else all of them.

    For a FlagCommand. `helps`: what a command says of a key where the key's own help does not fit.
    """

    def apply(function: Any) -> Any:
        said = "-".join(names) or group or "all"
        keep = _KeptPlace([f"--study-{said}"], names, group, helps or {})
        function.__click_params__ = [*getattr(function, "__click_params__", ()), keep]
        return function

    return apply


data_flags = study_flags(group="data")


class _KeptPlace(click.Option):
    """Keeps a place among a command's options for flags that are made when it is used."""

    def __init__(
        self, opts: Sequence[str], names: Sequence[str], group: str | None, helps: Mapping[str, str]
    ) -> None:
        super().__init__(opts, hidden=True)
        self._keys, self._group, self._helps = names, group, helps

    @functools.cached_property
    def options(self) -> list[click.Option]:
        from tunelab.study.file import study_keys

        keys = study_keys()
        if self._keys:
            keys = tuple(next(k for k in keys if k.name == name) for name in self._keys)
        elif self._group:
            keys = tuple(k for k in keys if k.flag.group == self._group)
        return [_study_option(k, self._helps.get(k.name, k.flag.help)) for k in keys]


def _study_option(key: StudyKey, text: str) -> click.Option:
    """The flag of a study key. Left out, its value is None: then the file or the default counts."""
    name, flag = flag_name(key.name), key.flag
    default = key.default
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    text = text.format(default=shown)
    if flag.reads == "switch":
        name += f"/--{flag.off}" if flag.off else ""
        return click.Option([name], is_flag=True, default=None, help=text)
    if flag.reads == "repeated":
        return click.Option([name], multiple=True, metavar=flag.metavar, help=text)
    kind = _click_type(key) if flag.reads == "value" else None
    return click.Option([name], type=kind, metavar=flag.metavar, help=text)


def _click_type(key: StudyKey) -> click.ParamType[Any] | None:
    """How click checks a value: by the key's type and limits; None: a text."""
    annotation = key.field.annotation
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    types = {annotation, *get_args(annotation)}
    limits = {
        name: getattr(m, name)
        for m in key.field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(m, name)
    }
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if str in types:
        return None
    if float in types:
        return click.FloatRange(low, high, min_open="gt" in limits, max_open="lt" in limits)
    return click.IntRange(low if key.flag.least is None else key.flag.least, high)


class FlagCommand(click.Command):
    """A command whose `study_flags` are replaced by the flags that they stand for."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own and those that it stands for, in the order of the decorators."""
        out: list[click.Parameter] = []
        for p in super().get_params(ctx):
            out += p.options if isinstance(p, _KeptPlace) else [p]
        return out


class StudyCommand(FlagCommand):
    """A command that takes every setting of every method as a flag, read from METHODS itself."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own, every setting of a method, names from other tools, and --help."""
        from tunelab.methods.settings import ALIASES
        from tunelab.study.file import setting_fields

        own = super().get_params(ctx)
        taken = {p.name for p in own}
        more: list[click.Parameter] = [
            click.Option([flag_name(name)], metavar="VALUE", help=f"{about} [{_who(methods)}]")
            for name, (methods, about) in setting_fields().items()
            if name not in taken
        ]
        more += [
            click.Option([flag_name(a)], hidden=True)
            for a in ALIASES
            if a not in taken and a not in setting_fields()
        ]
        help_option = own.pop()
        return [*own, *more, help_option]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Settings of methods stand below in a section of their own."""
        from tunelab.study.file import setting_fields

        settings = setting_fields()
        own: list[tuple[str, str]] = []
        theirs: list[tuple[str, str]] = []
        for p in self.get_params(ctx):
            record = p.get_help_record(ctx)
            if record:
                (theirs if p.name in settings else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Settings of methods (each goes to every method that has it)"):
            formatter.write_dl(theirs)


def flag_name(name: str) -> str:
    """The flag of a key or setting: num_train_epochs is --num-train-epochs."""
    return "--" + name.replace("_", "-")


def _who(methods: Sequence[str]) -> str:
    from tunelab.methods import METHODS

    training = [m.name for m in METHODS.values() if "learning_rate" in m.settings.model_fields]
    if list(methods) == training:
        return "all that train"
    return ", ".join(methods)


def take_study_keys(given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """A command's values -> (study keys by their path, settings of methods)."""
    from tunelab.study.file import study_keys
    from tunelab.study.reading import scalar

    keys = {k.name: k for k in study_keys()}
    study: dict[str, object] = {}
    for name, key in keys.items():
        study[key.path] = _study_value(key, given.get(name))
    settings = {k: scalar(str(v)) for k, v in given.items() if k not in keys and v is not None}
    return study, settings


def _study_value(key: StudyKey, value: object) -> object:
    """What click read of a flag, as a study file would have it; None where it is left out."""
    from tunelab.core.words import comma_names
    from tunelab.study.reading import scalar

    match key.flag.reads, value:
        case "yaml", str():
            return scalar(value)
        case "names", str():
            return comma_names(value)
        case "repeated", list() | tuple():
            return list(value) or None
    return value
