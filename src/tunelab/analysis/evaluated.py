"""What is said of the confidence of saved classifiers that were scored on the same rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = [
    "OwnTemperature",
    "truer_in_words",
]


@dataclass(frozen=True, slots=True)
class OwnTemperature:
    """What a classifier's own temperature does to its probabilities, or the `reason` for none.

    `raw_ece`: the calibration error of what its scores say without it.
    """

    temperature: float | None
    reason: str = ""
    ece: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    raw_ece: float | None = None

    def to_json(self) -> dict[str, object]:
        """As `evaluate --json` gives it."""
        if self.temperature is None:
            return {"temperature": None, "reason": self.reason}
        return {k: v for k, v in asdict(self).items() if k != "reason"}


def truer_in_words(name: str, ece: float | None, own: OwnTemperature) -> str:
    """How far a classifier's confidence is off, with its temperature where it has one."""
    if ece is None:
        return f"{name}: its confidence cannot be judged on these rows"
    off = f"{name}: its confidence is off by {100 * ece:.1f} points beyond the luck of the labels"
    if own.temperature is None:
        return f"{off}; not calibrated: {own.reason.removeprefix(f'{name}: ')}"
    if own.raw_ece is None:
        return off
    return (
        f"{off}, with its temperature of {own.temperature:.2f}; raw (predict --raw) by "
        f"{100 * own.raw_ece:.1f}"
    )
