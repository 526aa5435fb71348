"""What Python users call: load_data, compare, fine_tune, load.

`run_study` and `train_one` are what the command line calls too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunelab import analysis, data, study
from tunelab.analysis import Recommendation, sensitivity, summary, tradeoff
from tunelab.analysis.calibrations import Calibrations, calibrate_study
from tunelab.analysis.ensembles import Ensemble, ensemble_of
from tunelab.analysis.front import Front, front
from tunelab.analysis.opened import OpenedStudy
from tunelab.analysis.predicted import predictions_frame
from tunelab.analysis.slicing import Slices, slice_study
from tunelab.analysis.winners_forms import winners_forms
from tunelab.classifiers import classifier_folder, load
from tunelab.core import files, results_table
from tunelab.core.events import Note
from tunelab.core.forms import StudyExports
from tunelab.core.tasks import TaskName
from tunelab.core.values import Artifact, Dataset, DataSpec, TrialResult
from tunelab.core.words import comma_names
from tunelab.data.given import GivenRows, source_of, sources_of
from tunelab.report import page, writing
from tunelab.report.review import write_review
from tunelab.report.writing import Written
from tunelab.study import (
    Conclusions,
    OnStudyEvent,
    OnUserEvent,
    Schedule,
    file,
    final,
    resolve,
    shipping,
)
from tunelab.study.alone import train_one
from tunelab.study.ensembling import write_ensemble
from tunelab.study.executors import Worker
from tunelab.study.explaining import explain_best
from tunelab.study.telling import meanwhile, tell_both, telling

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Study",
    "classifier_folder",
    "compare",
    "fine_tune",
    "load",
    "load_base",
    "load_data",
    "run_study",
    "train_one",
]


def _ignore_event(_: object) -> None:
    """Hear events and say nothing."""


def load_data(
    source: str | Path | GivenRows,
    labels: Iterable[object] | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    subset: int | None = None,
    split_seed: int = 0,
    encoding: str = "utf-8",
    on_bad_rows: Literal["fail", "drop"] = "fail",
    on_leak: Literal["warn", "drop", "fail"] = "warn",
    quoting: Literal["auto", "double", "none"] = "auto",
    join_labels: bool = False,
    drop_classes: Sequence[str] | None = None,
    min_rows_per_class: int | None = None,
    task: TaskName | None = None,
    label_separator: str | None = None,
    label_columns: Sequence[str] | None = None,
    corrections: str | None = None,
    group_column: str | None = None,
) -> Dataset:
    """Load labelled texts in train, validation and test parts; see `tunelab inspect data`.

    `source`: as in `compare`. Raises DataError in one line that says what is wrong and what to do.
    """
    with source_of(source, labels) as name:
        spec = DataSpec(
            name,
            text_column,
            label_column,
            subset,
            split_seed,
            encoding,
            on_bad_rows,
            on_leak,
            id_column,
            quoting,
            join_labels,
            drop_classes,
            min_rows_per_class,
            task,
            label_separator,
            label_columns,
            corrections,
            group_column,
        )
        return data.load(spec)


class Study(OpenedStudy):
    """A study's folder: its table, its verdicts, its best model. Reads from disk when asked."""

    def __init__(self, directory: Path | str, *, said: Conclusions | None = None) -> None:
        """`said`: what has just been said of it, where its outputs were written."""
        super().__init__(
            directory,
            summary=said.summary if said else None,
            probabilities=said.probabilities if said else None,
        )

    def judged_by(self, metric: str | None) -> analysis.Summary:
        """The summary by another metric; None: by the study's. Raises ConfigError for no metric."""
        if metric is not None:
            resolve.require_metric(metric)
        return super().judged_by(metric)

    def table(self, *, all_columns: bool = False) -> pd.DataFrame:
        """One row a method, best first: what the printed table has; `all_columns`: every score and
        cost, each with its interval.
        """
        return summary.table(self.summary, all_columns=all_columns)

    def trials(self) -> pd.DataFrame:
        """One row a trial, as results.csv: method, settings, seed, scores, costs, error."""
        import pandas as pd

        return pd.DataFrame(results_table.results_rows(self.record.results))

    def history(self) -> pd.DataFrame:
        """Training curves, a row a log line: label, seed, step, epoch, loss, eval_accuracy, ..."""
        import pandas as pd

        rows = [
            {"label": r.spec.method.label, "seed": r.spec.seed, **line}
            for r in self.record.done
            for line in self.record.history(r.spec.trial_id)
        ]
        return pd.DataFrame(rows)

    def predictions(
        self, part: Literal["validation", "test"] = "test", *, raw: bool = False
    ) -> pd.DataFrame:
        """One row a trial and text: label (the method's), seed, id, row, text, truth, predicted,
        probability of that class, and probability_<class> of each.

        `id` is the data's own where it has an id column, else `row`: file and line. The truth of a
        part without labels is missing. Probabilities are those at the trial's temperature, `raw` as
        scores give them; a method with margins has none. Where a study tests all rows in folds, a
        seed has those that it tests, and `repetition` and `fold` (from 0) say which.
        """
        return predictions_frame(self.record, part, raw=raw)

    def sentences(self) -> tuple[str, ...]:
        """What can be said about the pairs that matter, in plain words."""
        return self.summary.sentences

    def recommend(self, margin: float = 0.01, cost: str = "train_seconds") -> Recommendation:
        """The cheapest method shown to lose less than `margin` (0.01: one point), and why."""
        return tradeoff.recommend(self.record, margin=margin, cost=cost, summary=self.summary)

    def front(self, cost: str = "train_seconds") -> Front:
        """The Pareto front of the metric against a cost, with the probability to be on it."""
        return front(self.record, cost, self.summary)

    def slices(self, by: str | Sequence[str] | None = None) -> Slices:
        """Accuracy by length, label, file and any column (`by`: these alone): where each method is
        weaker or stronger. Raises InputError where there is nothing to cut.
        """
        return slice_study(self.record, None if by is None else comma_names(by))

    def calibration(self) -> Calibrations:
        """Whether each method's probabilities are right, before and after temperature scaling."""
        return calibrate_study(self.record)

    def ensemble(
        self,
        methods: str | Sequence[str] | None = None,
        *,
        metric: str | None = None,
        output_dir: str | Path | None = None,
        overwrite: bool = False,
    ) -> tuple[Ensemble, Artifact | None]:
        """Average methods (None: all that give probabilities), with weights chosen on validation.

        Nothing is trained. With `output_dir`, the classifier of the seed that is best on validation
        is written there. Raises InputError where there are not two methods to average.
        """
        if metric is not None:
            resolve.require_metric(metric)
        labels = None if methods is None else comma_names(methods)
        said = ensemble_of(self.record, labels, metric or self.record.settings["metric"])
        if output_dir is None:
            return said, None
        return said, write_ensemble(self.record, said, Path(output_dir).expanduser(), overwrite)

    def sensitivity(self, of: str | None = None) -> tuple[sensitivity.Sensitivity, ...]:
        """What each setting that varies does to the metric, or to `of`: a metric, score or cost."""
        return sensitivity.analyse(self.record, of)

    def exports(self) -> StudyExports | None:
        """The best classifier in other forms, with size, speed and verdict (`export` of `compare`);
        None where none was asked for.
        """
        return winners_forms(self.record)

    def best(self) -> Artifact:
        """The classifier to ship: the best method on validation, its best seed on validation; of a
        cross-fitted study, the one that was last trained on all rows.

        Give it to `tunelab.load`. Raises ArtifactError where no trial ended well.
        """
        trial = summary.best_trial(self.record, self.summary)
        return final.shipped(self.record, self.summary, trial)

    def train_on_all_rows(
        self,
        method: str | None = None,
        *,
        trust_remote_code: bool = False,
        on_event: OnUserEvent = _ignore_event,
    ) -> Artifact:
        """Train a method (None: the recommended one) of a cross-fitted study on all of its rows.

        Raises ConfigError where the study is not cross-fitted, TrialError where training failed.
        """
        hear = study.tell_user(on_event)
        final.train_on_all_rows(self.directory, method, hear, trust_remote_code)
        return Study(self.directory).best()

    def extend(
        self,
        seeds: int | None = None,
        *,
        until: Literal["decided"] | None = None,
        max_seeds: int | None = None,
        step: int | None = None,
        trust_remote_code: bool = False,
        engine: str | None = None,
        on_event: OnUserEvent = _ignore_event,
    ) -> Study:
        """Run every method with more seeds, `seeds` in all; what is there is kept. Gives the study
        anew.

        `until="decided"`: `step` more (2) at a time, until the best is better than every other
        method or equivalent to it, or there are `max_seeds` in all (20). The study is looked at
        after each time, which its levels account for: docs/statistics.md. A model's own code runs
        only where `trust_remote_code` allows it here, whatever the study was run with.
        """
        rounds = study.rounds_of(
            self.directory,
            study.write_outputs,
            seeds,
            until=until,
            max_seeds=max_seeds,
            step=step,
            trust_remote_code=trust_remote_code,
        )
        for spec in rounds:
            schedule = study.scheduled(study.plan(spec))
            run_study(schedule, "Study.extend(...)", study.tell_user(on_event), engine=engine)
        return Study(self.directory)

    def report(
        self,
        formats: str | Sequence[str] = "html",
        *,
        figures: str | Sequence[str] = (),
        compare: Path | str | Study | None = None,
        metric: str | None = None,
        output_dir: Path | str | None = None,
        explain: bool = False,
        trust_remote_code: bool = False,
    ) -> Written:
        """Write the report in `formats` (html, markdown, csv, latex), every chart as `figures`
        (png, svg, pdf), and a model card beside each model; `compare`: beside another study.

        `output_dir`: where to (the study's folder). `explain`: the words that moved the best
        classifier's mistakes are marked (words.json keeps them). Raises InputError, before
        anything is written.
        """
        asked: OpenedStudy = self
        if explain:
            explain_best(self.record, self.judged_by(metric), trust_remote_code)
            asked = OpenedStudy(self.directory)  # with what was kept just now
        return writing.write_study(
            asked,
            comma_names(formats),
            figures=comma_names(figures),
            compare=Study(compare) if isinstance(compare, str | Path) else compare,
            metric=metric,
            output_dir=None if output_dir is None else Path(output_dir),
        )

    def review(self, output_file: str | Path | None = None) -> Path:
        """Write the page on which labels in doubt are kept or changed (None: review.html in the
        study's folder); it gives the file of `compare(..., corrections=...)`.

        Raises InputError where no label is in doubt.
        """
        file = None if output_file is None else Path(output_file).expanduser()
        return write_review(self.record, file or self.directory / "review.html")

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, how sure it is, the table."""
        return page.in_short(self.summary.answer, *summary.summary_for_display(self.summary))

    def __repr__(self) -> str:
        """The answer in one line."""
        return f"Study({str(self.directory)!r}): {self.summary.answer.sentence}"


def compare(
    source: str | Path | GivenRows | None = None,
    labels: Iterable[object] | None = None,
    *,
    config_file: str | Path | None = None,
    model: str | None = None,
    trust_remote_code: bool | None = None,
    methods: str | Sequence[str | Mapping[str, object]] | None = None,
    seeds: int | Sequence[int] | None = None,
    metric: str | None = None,
    output_dir: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    subset: int | None = None,
    split_seed: int | None = None,
    encoding: str | None = None,
    on_bad_rows: Literal["fail", "drop"] | None = None,
    on_leak: Literal["warn", "drop", "fail"] | None = None,
    quoting: Literal["auto", "double", "none"] | None = None,
    join_labels: bool | None = None,
    drop_classes: Sequence[str] | None = None,
    min_rows_per_class: int | None = None,
    task: TaskName | None = None,
    label_separator: str | None = None,
    label_columns: Sequence[str] | None = None,
    corrections: str | Path | None = None,
    group_column: str | None = None,
    tuning: bool | int | Mapping[str, object] | None = None,
    vary_split: bool | None = None,
    folds: int | Literal["auto", "off"] | None = None,
    train_sizes: str | Sequence[int | str] | None = None,
    test_on: str | Path | Sequence[str | Path | Mapping[str, object]] | GivenRows | None = None,
    race: bool | None = None,
    budget: float | str | None = None,
    behaviour: bool | str | None = None,
    disagreement: float | None = None,
    export: str | Sequence[str] | None = None,
    engine: str | None = None,
    address: str | None = None,
    resources: str | Mapping[str, float] | None = None,
    report_to: str | Sequence[str] | None = None,
    jobs: int | Literal["auto"] | None = None,
    stack: int | Literal["auto", "off"] | None = None,
    checkpoint_every: float | str | None = None,
    on_event: OnUserEvent = _ignore_event,
    **settings: Any,
) -> Study:
    """Train and compare methods on the same splits; resume where the folder has trials already.

    `source`: a file, a folder or a hub id; or rows: a DataFrame (pandas, polars), an Arrow table, a
    `datasets.Dataset` or `DatasetDict`, columns by name, a list of rows, parts of these by name; or
    texts, with one of `labels` each. The study's folder keeps such rows and goes on without them.

    Every key of a study file but `training` is a keyword, and so is every key of its `data`;
    docs/reference/config says what each is; those left out are as in `config_file`, or default.

    Several names may be one string, with commas, as on the command line: "svm-tfidf,lora".
    Keyword `settings` (learning_rate, r, num_train_epochs, ...) go to every method that has them.
    Raises InputError before anything is trained; failed trials are kept in the study.
    """
    # The study keys among these are known by name: tests/unit/study/test_study_keys.py
    given = locals()
    file.refuse_study_keys(settings, "tunelab.compare")
    path = Path(config_file) if config_file is not None else None
    with ExitStack() as inside:
        given["test_on"] = sources_of(test_on, inside)
        keys = file.keys_from_keywords(given)
        keys["data.source"] = inside.enter_context(source_of(source, labels)) or None
        spec, said = resolve.resolve_study(path, keys, settings), study.tell_user(on_event)
        worker = inside.enter_context(study.worker(spec))
        schedule = study.scheduled(study.keep_given(study.plan(spec)))
        return run_study(schedule, "tunelab.compare(...)", said, worker=worker)


def run_study(
    schedule: Schedule,
    command: str,
    on_event: OnStudyEvent,
    on_result: Callable[[TrialResult], None] = lambda _: None,
    engine: str | None = None,
    *,
    worker: Worker | None = None,
) -> Study:
    """Run what a study lacks; write its tables and report, also when it is interrupted.

    Gives the study as it then is. `engine`: where trials run (None: where the study says).
    `worker`: where one was started before the plan was made (`study.worker`).
    Raises ConfigError where another process is running trials in the same folder.
    """
    if (engine or schedule.plan.spec.engine) == "process" and schedule.jobs > 1:
        # Trials that are measured alone must not be disturbed.
        on_event = meanwhile(on_event, page.prepare_page)
    folder = schedule.plan.spec.output_dir
    with files.locked(folder):
        study.write(schedule.progress, command)
        with telling(folder, schedule) as told:
            hear, keep = tell_both(told.event, on_event), tell_both(told.result, on_result)
            spec = schedule.plan.spec
            try:
                for result in study.run(schedule, hear, engine, worker):
                    keep(result)
                if spec.parts is not None:
                    final.train_final(schedule.plan, None, hear, keep, engine)
                if spec.export:
                    shipping.export_winner(
                        folder, spec.export, lambda line: hear(Note(line)), spec.trust_remote_code
                    )
            finally:
                outputs = study.write_outputs(folder)
    return Study(folder, said=outputs)


def fine_tune(
    source: str | Path | GivenRows,
    method: str | Mapping[str, object] = "lora",
    labels: Iterable[object] | None = None,
    *,
    output_dir: str | Path,
    model: str | None = None,
    trust_remote_code: bool | None = None,
    seed: int = 0,
    metric: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    subset: int | None = None,
    split_seed: int | None = None,
    encoding: str | None = None,
    on_bad_rows: Literal["fail", "drop"] | None = None,
    on_leak: Literal["warn", "drop", "fail"] | None = None,
    quoting: Literal["auto", "double", "none"] | None = None,
    join_labels: bool | None = None,
    drop_classes: Sequence[str] | None = None,
    min_rows_per_class: int | None = None,
    task: TaskName | None = None,
    label_separator: str | None = None,
    label_columns: Sequence[str] | None = None,
    corrections: str | Path | None = None,
    group_column: str | None = None,
    report_to: str | Sequence[str] | None = None,
    checkpoint_every: float | str | None = None,
    overwrite: bool = False,
    on_event: OnUserEvent = _ignore_event,
    **settings: Any,
) -> TrialResult:
    """Train one method with one seed into a folder that `load` reads, as `tunelab train` does.

    `source`, `labels`: as in `compare`; rows that are given so are not kept.
    Returns the trial's result: `scores` (eval_* on validation, test_*) and `cost`. Raises
    InputError before anything is trained, TrialError where training failed.
    """
    keys = file.keys_from_keywords(locals())  # as in `compare`
    file.refuse_study_keys(settings, "tunelab.fine_tune")
    with source_of(source, labels) as name:
        keys |= {"data.source": name, "methods": [method], "seeds": [seed]}
        spec = resolve.resolve_study(None, keys, settings)
        return train_one(spec, overwrite=overwrite, on_event=study.tell_user(on_event))


def load_base(name: str = "minilm") -> tuple[Any, Any]:
    """A base model to look into: transformers' model without a head, and its tokenizer.

    The model is in float32 and evaluation mode. `name` as `model` elsewhere: a hub id, a local
    folder or the bundled minilm.
    """
    from tunelab.models import bases, pretrained

    base = bases.resolve(name)
    return pretrained.load_encoder(base), pretrained.load_tokenizer(base)
