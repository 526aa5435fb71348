"""Optuna's proposals of settings, replayed from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunelab.core.errors import ConfigError
from tunelab.core.extras import install_line
from tunelab.core.plain import PlainValue, SettingValues
from tunelab.study.space import TUNING_SEED, Range, Space, as_hashable

__all__ = [
    "Proposals",
]


class Proposals:
    """Optuna's proposals for one method: ask for settings, tell what they gave.

    Kept in the study's folder (`tuning.optuna.log`, a journal that Optuna and its dashboard read),
    so a study that was stopped goes on where it was. The first proposal is the start.
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        space: Space,
        start: SettingValues,
        higher_is_better: bool,
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise ConfigError(
                "tuning: a budget is spent by optuna, which is not installed. Install it: "
                f"{install_line('tune')}, or give lists of values without a budget."
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._optuna = optuna
        self._space = space
        storage = JournalStorage(JournalFileBackend(str(folder / "tuning.optuna.log")))
        self._study = optuna.create_study(
            storage=storage,
            study_name=label,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
        # A sampler that begins anew with the same seed would draw again what it drew before.
        asked_before = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = optuna.samplers.TPESampler(
            seed=TUNING_SEED + asked_before, n_startup_trials=5
        )
        inside = {k: v for k, v in start.items() if k in space and _contains(space[k], v)}
        if not self._study.trials and len(inside) == len(space):
            self._study.enqueue_trial(self._encoded(inside))

    def ask(self) -> tuple[int, SettingValues]:
        """The number of a try and its settings; first those that were asked for and not told."""
        states = self._optuna.trial.TrialState
        for waiting in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if set(waiting.params) == set(self._space):
                return waiting.number, self._decoded(waiting.params)
            self._study.tell(waiting.number, state=states.FAIL)  # stopped while it was asked
        trial = self._study.ask()
        for name, values in self._space.items():
            if isinstance(values, tuple):
                trial.suggest_categorical(name, [str(i) for i in range(len(values))])
            elif values.integer:
                trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
            else:
                trial.suggest_float(name, values.low, values.high, log=values.log)
        return trial.number, self._decoded(trial.params)

    def tell(self, number: int, value: float | None, pruned: bool) -> None:
        """What a try gave. One that was ended early counts with its last value."""
        states = self._optuna.trial.TrialState
        if value is None:
            self._study.tell(number, state=states.FAIL)
        elif pruned:
            frozen = next(t for t in self._study.get_trials(deepcopy=False) if t.number == number)
            self._optuna.trial.Trial(self._study, frozen._trial_id).report(value, step=1)
            self._study.tell(number, state=states.PRUNED)
        else:
            self._study.tell(number, value)

    @property
    def told(self) -> list[SettingValues]:
        """The settings of all finished tries, in order; not of one that was stopped while asked."""
        done = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        return [self._decoded(t.params) for t in done if set(t.params) == set(self._space)]

    def _encoded(self, settings: SettingValues) -> dict[str, PlainValue]:
        out = {}
        for name, value in settings.items():
            values = self._space[name]
            place = values.index(as_hashable(value)) if isinstance(values, tuple) else None
            out[name] = value if place is None else str(place)
        return out

    def _decoded(self, params: Mapping[str, str | int | float]) -> SettingValues:
        out: dict[str, PlainValue] = {}
        for name, value in params.items():
            values = self._space[name]
            chosen = values[int(value)] if isinstance(values, tuple) else value
            out[name] = list(chosen) if isinstance(chosen, tuple) else chosen
        return out


def _contains(values: tuple[PlainValue, ...] | Range, value: PlainValue) -> bool:
    if isinstance(values, Range):
        return isinstance(value, int | float) and values.low <= value <= values.high
    return as_hashable(value) in values
