"""Flags that several verbs share, and how settings of methods become flags."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

import click

from tunelab.core.data_keys import DATA_FLAGS, TEXT_FILE_KEYS, Flag, TextFileKeys

if TYPE_CHECKING:
    from tunelab.study.file import StudyKey

__all__ = [
    "FlagCommand",
    "StudyCommand",
    "data_flags",
    "study_flags",
    "take_study_keys",
    "text_file_flags",
    "text_file_keys",
]


def study_flags(
    *names: str, group: str | None = None, helps: Mapping[str, str] | None = None
) -> Callable[[Any], Any]:
    """Stand for the flags of study keys: those named, those of a group, or else all of them.

    For a FlagCommand. `helps`: what a command says of a key where the key's own help does not fit.
    """

    def options() -> list[click.Option]:
        from tunelab.study.file import study_keys

        keys = study_keys()
        if names:
            keys = tuple(next(k for k in keys if k.name == name) for name in names)
        elif group:
            keys = tuple(k for k in keys if k.flag.group == group)
        said = helps or {}
        return [
            _option(
                k.name,
                k.flag,
                k.annotation,
                k.default,
                limits=k.field.metadata,
                text=said.get(k.name),
            )
            for k in keys
        ]

    return _place_for(f"--study-{'-'.join(names) or group or 'all'}", options)


def text_file_flags(*names: str) -> Callable[[Any], Any]:
    """Stand for the flags that say how a file of texts is read: those named, or all of them.

    For a FlagCommand. They are those of study keys, made without what a study takes to import.
    """

    def options() -> list[click.Option]:
        from tunelab.core.values import DataSpec

        types, defaults = get_type_hints(DataSpec), {f.name: f.default for f in fields(DataSpec)}
        return [
            _option(name, DATA_FLAGS[name], types[name], defaults[name])
            for name in names or TEXT_FILE_KEYS
        ]

    return _place_for("--text-file", options)


def text_file_keys(given: Mapping[str, object]) -> TextFileKeys:
    """What a command's flags say of a file of texts, as keywords of `data.open_texts`."""
    from tunelab.core.values import DataSpec

    defaults = {f.name: f.default for f in fields(DataSpec)}
    taken = {name: given[name] for name in TEXT_FILE_KEYS if name in given}
    filled = {name: defaults[name] if value is None else value for name, value in taken.items()}
    return cast("TextFileKeys", filled)


def _place_for(opt: str, options: Callable[[], list[click.Option]]) -> Callable[[Any], Any]:
    def apply(function: Any) -> Any:
        keep = _KeptPlace([opt], options)
        function.__click_params__ = [*getattr(function, "__click_params__", ()), keep]
        return function

    return apply


class _KeptPlace(click.Option):
    """Keeps a place among a command's options for flags that are made when it is used."""

    def __init__(self, opts: Sequence[str], options: Callable[[], list[click.Option]]) -> None:
        super().__init__(opts, hidden=True)
        self._options = options

    @functools.cached_property
    def options(self) -> list[click.Option]:
        return self._options()


data_flags = study_flags(group="data")


def _option(
    key: str,
    flag: Flag,
    annotation: Any,
    default: object,
    *,
    limits: Sequence[object] = (),
    text: str | None = None,
) -> click.Option:
    """The flag of a study key. Left out, its value is None: then the file or the default counts.

    `text`: what --help says of it, where that is not the flag's own.
    """
    name, text = flag_name(key), text or flag.help
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    text = text.format(default=shown)
    if flag.reads == "switch":
        name += f"/--{flag.off}" if flag.off else ""
        return click.Option([name], is_flag=True, default=None, help=text)
    if flag.reads == "repeated":
        return click.Option([name], multiple=True, metavar=flag.metavar, help=text)
    kind = _click_type(annotation, limits, flag.least) if flag.reads == "value" else None
    return click.Option([name], type=kind, metavar=flag.metavar, help=text)


def _click_type(
    annotation: Any, metadata: Sequence[object], least: int | None
) -> click.ParamType[Any] | None:
    """How click checks a value: by the key's type and limits; None: a text."""
    types = {annotation, *get_args(annotation)}
    choices = [t for t in (annotation, *get_args(annotation)) if get_origin(t) is Literal]
    if choices and types <= {annotation, choices[0], *get_args(choices[0]), type(None)}:
        return click.Choice(get_args(choices[0]))
    limits = {
        name: getattr(m, name)
        for m in metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(m, name)
    }
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if str in types:
        return None
    if float in types:
        return click.FloatRange(low, high, min_open="gt" in limits, max_open="lt" in limits)
    return click.IntRange(low if least is None else least, high)


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

        own, settings = super().get_params(ctx), self.settings(ctx)
        taken = {p.name for p in own}
        more: list[click.Parameter] = [
            click.Option([flag_name(name)], metavar="VALUE", help=f"{about} [{_who(methods)}]")
            for name, (methods, about) in setting_fields().items()
            if name in settings
        ]
        more += [
            click.Option([flag_name(a)], hidden=True)
            for a in ALIASES
            if a not in taken and a not in setting_fields()
        ]
        help_option = own.pop()
        return [*own, *more, help_option]

    def settings(self, ctx: click.Context) -> set[str]:
        """Names of the flags that are settings of methods, and no flag of the command's own."""
        from tunelab.study.file import setting_fields

        return setting_fields().keys() - {p.name for p in super().get_params(ctx)}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Settings of methods stand below in a section of their own."""
        settings = self.settings(ctx)
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
