"""What stands for a label where no training tells what it means: its name, or a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from tunelab.core.errors import ConfigError, suggest
from tunelab.methods.settings import Settings

__all__ = [
    "LabelDescriptions",
    "LabelTemplate",
    "refuse_unknown_labels",
]


class LabelDescriptions(Settings):
    """Settings of what is told of labels."""

    label_descriptions: dict[str, list[str]] = Field(
        default_factory=dict,
        description="what stands for a label in place of its name: a YAML file of label: text, or "
        "of several texts, whose vectors are averaged",
    )

    @field_validator("label_descriptions", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = _read_descriptions(Path(value))
        if not isinstance(value, Mapping):
            return value
        return {str(k): [v] if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("label_descriptions")
    @classmethod
    def _none_is_empty(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for label, texts in value.items():
            if not texts or not all(t.strip() for t in texts):
                raise ValueError(f"a text for each label; {label!r} has none")
        return value


class LabelTemplate(LabelDescriptions):
    """Settings of what reads a sentence about each label."""

    template: str = Field(
        "This text is about {}.",
        description="what is said of a label without a description; {} stands for its name",
    )

    @field_validator("template")
    @classmethod
    def _names_the_label(cls, value: str) -> str:
        if value.count("{}") != 1 or value.replace("{}", "").count("{"):
            raise ValueError("a text with {} once, which stands for the label")
        return value

    def texts_of(self, label_names: Sequence[str]) -> list[list[str]]:
        """What stands for each label: its descriptions, or the template with its name."""
        return [
            self.label_descriptions.get(n) or [self.template.replace("{}", n)] for n in label_names
        ]


def _read_descriptions(path: Path) -> object:
    import yaml

    from tunelab.core.bounded_yaml import BoundedLoader

    try:
        text = path.expanduser().read_text(encoding="utf-8")
        return yaml.load(text, Loader=BoundedLoader)  # noqa: S506  it is a safe loader
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise ValueError(f"a YAML file of label: text ({' '.join(str(e).split())})") from e


def refuse_unknown_labels(settings: LabelDescriptions, label_names: Sequence[str]) -> None:
    """Raise ConfigError for a description of a label that the data do not have."""
    for label in settings.label_descriptions:
        if label not in label_names:
            raise ConfigError(
                f"label_descriptions: {label!r} is no label of the data."
                f"{suggest(label, label_names, what='Labels')}"
            )
