"""What the task of the data asks of a study: its metric, its methods, what cannot be done."""

from __future__ import annotations

from dataclasses import replace

from tunelab.core.errors import ConfigError
from tunelab.core.plain import SettingValues
from tunelab.core.tasks import TASKS, TaskName
from tunelab.core.values import Dataset
from tunelab.core.words import listed
from tunelab.methods import METHODS
from tunelab.stats.metrics import METRICS, metrics_of
from tunelab.study.entries import settings_of_metric
from tunelab.study.spec import StudySpec

__all__ = ["with_task"]

_CHOSEN = "metric_for_best_model"


def with_task(spec: StudySpec, dataset: Dataset) -> tuple[StudySpec, tuple[str, ...]]:
    """The spec as the task of its data has it, and what is said of that.

    A metric that was not asked for is the task's own. Raises ConfigError for methods that cannot
    predict it, for another task's metric, and for what goes with one class a text alone.
    """
    task = dataset.task
    _refuse_methods(spec, task)
    metric, said = _metric(spec, task)
    if task == "classes":
        return spec, said
    about = TASKS[task].about
    if spec.race and metric != "accuracy":
        raise ConfigError(
            f"race: a race is decided by the accuracy of one class a text; these data have {about}."
            " Leave race and budget out."
        )
    if spec.behaviour is not None and task == "multilabel":
        raise ConfigError(
            f"behaviour: the suites expect one class a text; these data have {about}. Leave it out."
        )
    methods = tuple(
        replace(m, settings=_with_metric(m.settings, metric, task)) for m in spec.methods
    )
    data = replace(spec.data, task=task)
    said = (f"task: {about}; each trained head minimises {TASKS[task].loss}", *said)
    return replace(spec, metric=metric, methods=methods, data=data), said


def _refuse_methods(spec: StudySpec, task: TaskName) -> None:
    unable = dict.fromkeys(m.name for m in spec.methods if task not in METHODS[m.name].tasks)
    if unable:
        able = [name for name, m in METHODS.items() if task in m.tasks]
        only = "predicts" if len(unable) == 1 else "predict"
        raise ConfigError(
            f"methods: {listed(list(unable))} {only} one class a text, and these data have "
            f"{TASKS[task].about}. What can: {', '.join(able)}."
        )


def _metric(spec: StudySpec, task: TaskName) -> tuple[str, tuple[str, ...]]:
    """What the study is judged by, and what is said of it."""
    own, asked = TASKS[task].metric, spec.sources.get("metric", "default") != "default"
    if spec.metric in metrics_of(task) and (asked or task == "classes"):
        return spec.metric, ()
    if not asked:
        return own, (f"judged by {METRICS[own].label}, unless --metric names another",)
    raise ConfigError(
        f"metric: {spec.metric} is not for {TASKS[task].about}. Choose one of "
        f"{', '.join(metrics_of(task))}."
    )


def _with_metric(settings: SettingValues, metric: str, task: TaskName) -> SettingValues:
    """Settings whose best epoch is picked by what there is in this task."""
    chosen = settings.get(_CHOSEN)
    kept = chosen in metrics_of(task) and chosen != "accuracy"
    if chosen is None or chosen == "loss" or kept:
        return settings
    return {**settings, **settings_of_metric(metric)}
