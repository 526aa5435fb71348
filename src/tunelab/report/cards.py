"""A model card (README.md) for each artifact of a study, in the layout of the Hugging Face hub.

The front matter names base model, library, task and a `model-index` with the scores of this very
artifact; the text says what it is, how to use it, how it scored beside its other seeds and the
other methods, and where that ends. Everything is written from the study's records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tunelab.analysis import Summary, confidence, numbers
from tunelab.analysis.folds import final_trials, rows_in_words
from tunelab.analysis.markdown import in_markdown
from tunelab.analysis.verdict import Row, joined_by_and
from tunelab.core import artifact
from tunelab.core.errors import ArtifactError
from tunelab.core.files import write_text
from tunelab.core.study_folder import StudyRecord, artifact_dir
from tunelab.core.values import TrialResult
from tunelab.core.words import counted

__all__ = [
    "CARD",
    "card",
    "lines_of_use",
    "write_cards",
]


CARD = "README.md"
_LIBRARIES = {"adapter": "peft", "model": "transformers"}
# Our metrics by the names that the hub's leaderboards know.
_HUB_METRICS = {
    "accuracy": "accuracy",
    "f1_macro": "f1",
    "precision_macro": "precision",
    "recall_macro": "recall",
    "mcc": "matthews_correlation",
    "roc_auc": "roc_auc",
}


def write_cards(record: StudyRecord, summary: Summary) -> list[Path]:
    """Write the card of every artifact that the study holds; their paths, in the trials' order,
    then those of what was trained on all rows.
    """
    written = []
    for result in (*record.done, *final_trials(record)):
        folder = artifact_dir(record.directory, result.spec.trial_id)
        try:
            manifest = artifact.read_manifest(folder).manifest
        except ArtifactError:
            continue  # moved elsewhere, or cleaned away
        if CARD in manifest["files"]:
            continue  # sealed with a card of its own, whose hash is checked
        write_text(folder / CARD, card(record, summary, result, manifest))
        written.append(folder / CARD)
    return written


def card(
    record: StudyRecord, summary: Summary, result: TrialResult, manifest: Mapping[str, object]
) -> str:
    """The card of one trial's artifact as Markdown with YAML front matter."""
    import yaml

    method, several = result.spec.method, record.task == "multilabel"
    what = "labels, of which a text has several or none," if several else "classes"
    front = yaml.safe_dump(
        _front_matter(record, summary, result, manifest), sort_keys=False, allow_unicode=True
    )
    source = in_markdown(_data_name(record))
    base = _base(result)
    on = f" on {in_markdown(base)}" if base else ""
    parts = [
        f"---\n{front}---\n",
        f"# {in_markdown(method.label)}{on} for {source}\n",
        f"A text classifier with the {what} {_listed(record.data['label_names'])}, "
        f"{_how_made(result)} by tunelab (seed {result.spec.seed}).\n",
        "## Use\n",
        f"```python\n{lines_of_use(str(manifest['kind']), several=several)}\n```\n",
        _THRESHOLDS if several else "",
        "## Scores\n",
        _score_lines(summary, result),
        _standing_in_study(summary, result),
        _confidence_in_words(record, result),
        "## Training\n",
        _training(record, result),
        "## Limits\n",
        _limits_of_use(record, summary),
        "## Provenance\n",
        _provenance_lines(record, result, manifest),
    ]
    return "\n".join(p for p in parts if p)


def _how_made(result: TrialResult) -> str:
    name = f"`{_code(result.spec.method.name)}`"
    if result.details.training_rows == 0:
        return f"made with {name}, without a training row,"
    if result.details.training_rows is not None:
        return f"made with {name}, from {counted(result.details.training_rows, 'training row')},"
    return f"trained with {name}"


def _front_matter(
    record: StudyRecord, summary: Summary, result: TrialResult, manifest: Mapping[str, object]
) -> dict[str, object]:
    base, kind = _base(result), str(manifest["kind"])
    front: dict[str, object] = {}
    if base and "/" in base:
        front["base_model"] = base
    front |= {
        "library_name": _LIBRARIES.get(kind, "tunelab"),
        "pipeline_tag": "text-classification",
        "tags": ["tunelab", result.spec.method.name],
    }
    metrics = [
        {"type": hub, "name": _where(part, name), "value": round(value, 5)}
        for part in ("test", "eval")
        for name, hub in _HUB_METRICS.items()
        if part == summary.part and (value := result.scores.get(f"{part}_{name}")) is not None
    ]
    if metrics:
        front["metrics"] = list(dict.fromkeys(m["type"] for m in metrics))
        dataset: dict[str, str] = {
            "name": _data_name(record),
            "type": re.sub(r"[^\w./-]+", "-", _data_name(record)) or "data",
            "split": summary.split,
        }
        if record.data["revision"]:
            dataset["revision"] = record.data["revision"]
        front["model-index"] = [
            {
                "name": result.spec.method.label,
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "Text Classification"},
                        "dataset": dataset,
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return front


def _where(part: str, name: str) -> str:
    return numbers.column(f"{part}_{name}").about


def _base(result: TrialResult) -> str | None:
    """The base's name where others can look it up; a folder of this machine says nothing."""
    if result.spec.base is None:
        return None
    name, _ = result.spec.base.elsewhere
    return name if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else "a local model"


def _data_name(record: StudyRecord) -> str:
    """The data's name; of a path, its last part."""
    name = record.data["name"]
    return Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) else name


# Beside the lines of use, of a classifier of several labels a text.
_THRESHOLDS = (
    "tunelab predicts every label whose probability reaches its threshold, chosen on validation "
    "and kept in `calibration.json`; other tools give each label's probability.\n"
)


def lines_of_use(kind: str, *, several: bool = False) -> str:
    """Python that runs as it stands, once the folder is named; `several`: labels a text."""
    if several:
        plain = lines_of_use(kind).replace("classifier.predict(", "classifier.predict_labels(")
        every = 'truncation=True, top_k=None, function_to_apply="sigmoid")'
        return plain.replace("truncation=True)", every)
    ours = 'import tunelab\n\nclassifier = tunelab.load("path/to/this/folder")\n'
    ours += 'classifier.predict(["a quiet, wonderful film"])'
    if kind == "adapter":
        return f"{ours}\n\n# or with peft\n{_WITH_PEFT}"
    if kind == "model":
        return f"{ours}\n\n# or with transformers\n{_WITH_TRANSFORMERS}"
    return ours


# Labels come from the config beside the adapter: the base's own knows none of them, so that
# transformers would call them LABEL_0, LABEL_1.
_WITH_PEFT = """
from peft import PeftConfig, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline

folder = "path/to/this/folder"
adapter, labels = PeftConfig.from_pretrained(folder), AutoConfig.from_pretrained(folder)
base = AutoModelForSequenceClassification.from_pretrained(
    adapter.base_model_name_or_path, revision=adapter.revision, config=labels
)
model = PeftModel.from_pretrained(base, folder)
classify = pipeline("text-classification", model=model, tokenizer=folder)
classify(["a quiet, wonderful film"], truncation=True)
""".strip()
_WITH_TRANSFORMERS = """
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder")
classify(["a quiet, wonderful film"], truncation=True)
""".strip()


def _score_lines(summary: Summary, result: TrialResult) -> str:
    """This artifact's scores, beside the mean of its method over seeds."""
    row = summary.row(result.spec.method.label)
    if result.spec.purpose == "final":
        return _expected_lines(summary, row)
    names = [f"{summary.part}_{m}" for m in dict.fromkeys([summary.metric, *_HUB_METRICS])]
    lines = [
        f"| score | this artifact | mean of {counted(row.n_seeds, 'seed')} |",
        "|---|---|---|",
    ]
    for name in names:
        value, column = result.scores.get(name), numbers.column(name)
        if value is None:
            continue
        bare = numbers.format_percent(value) if column.kind == "percent" else f"{value:.3f}"
        mean = numbers.format_estimate(row.estimates.get(name), column.kind)
        lines.append(f"| {column.heading} | {bare} | {mean} |")
    return "\n".join(lines) + "\n"


def _expected_lines(summary: Summary, row: Row) -> str:
    """What to expect of a classifier that was trained on all rows: what its method scored."""
    lines = [
        "No rows were left to test this classifier. Expected of it is what its method scored when "
        f"every row was tested by a training that had not seen it ({summary.cross_fitted}):\n",
        f"| score | cross-fitted, mean of {counted(row.n_seeds, 'training')} |",
        "|---|---|",
    ]
    for name in (f"test_{m}" for m in dict.fromkeys([summary.metric, *_HUB_METRICS])):
        estimate, column = row.estimates.get(name), numbers.column(name)
        if estimate is not None:
            shown = numbers.format_estimate(estimate, column.kind)
            lines.append(f"| {column.heading} | {shown} |")
    return "\n".join(lines) + "\n"


def _standing_in_study(summary: Summary, result: TrialResult) -> str:
    label = result.spec.method.label
    if label == summary.best:
        said = "; ".join(c.sentence.rstrip(".") for c in summary.against_best())
        return f"Its method was chosen on validation. {in_markdown(said)}.\n" if said else ""
    pair = next((c for c in summary.against_best() if c.b == label), None)
    return f"{in_markdown(pair.sentence.rstrip('.'))}.\n" if pair else ""


def _confidence_in_words(record: StudyRecord, result: TrialResult) -> str:
    """How sure this very artifact says it is, and how often it is right, raw and scaled."""
    predictions = record.predictions(result.spec.trial_id)
    part = "test" if "test" in predictions else "validation"
    if part not in predictions:
        return ""
    c = confidence.confidence_of(predictions.get("validation"), predictions[part])
    if c is None:
        return ""
    right, raw = numbers.format_percent(c.right), numbers.format_percent(c.raw)
    said = f"It is right on {right}% of the {c.rows:,} {part} rows. "
    if c.temperature is None or c.scaled is None:
        said += f"Its probabilities say {raw}% there on average; no temperature could be fitted."
    else:
        said += (
            f"`tunelab.load` and `tunelab predict` divide its scores by {c.temperature:.2f}, the "
            "temperature fitted on validation: its highest probability is then "
            f"{numbers.format_percent(c.scaled)}% on average. Raw, as peft and transformers give "
            f"it, it is {raw}%."
        )
    return f"## Probabilities\n\n{said}\n"


def _training(record: StudyRecord, result: TrialResult) -> str:
    rows = rows_in_words(record.data)
    if result.spec.purpose == "final":
        rows = f"all {record.data['folds']['rows']:,} rows"
    elif result.spec.fold is not None:
        fold = result.spec.fold
        parts = ", ".join(f"{n:,} {part}" for part, n in record.data["sizes"].items())
        rows = f"without part {fold.number + 1} of {fold.of}, which it was tested on: about {parts}"
    settings = "\n".join(
        f"| `{_code(k)}` | `{_code(json.dumps(v, ensure_ascii=False))}` |"
        for k, v in result.spec.method.settings.items()
    )
    cost = result.cost
    spent = [
        ("trained in", numbers.format_seconds(cost.train_seconds), cost.train_seconds),
        ("peak memory", numbers.format_bytes(cost.peak_memory_bytes), cost.peak_memory_bytes),
        (
            "trained parameters",
            numbers.format_parameters(cost.trainable_parameters),
            cost.trainable_parameters,
        ),
    ]
    said = ", ".join(f"{what} {text}" for what, text, value in spent if value is not None)
    return (
        f"Data: {in_markdown(_data_name(record))} ({rows}). {said[:1].upper()}{said[1:]}.\n\n"
        f"| setting | value |\n|---|---|\n{settings}\n"
    )


def _limits_of_use(record: StudyRecord, summary: Summary) -> str:
    lines = [
        "Scores hold for texts like those of the data above; on others they are unknown. "
        "The classes are what the labels say, not what a text is."
    ]
    return "\n".join(f"- {in_markdown(line)}" for line in (*lines, *summary.warnings)) + "\n"


def _provenance_lines(
    record: StudyRecord, result: TrialResult, manifest: Mapping[str, object]
) -> str:
    versions = result.provenance.versions
    pairs = [
        ("tunelab", manifest.get("tunelab")),
        ("trial", result.spec.trial_id),
        ("data (SHA-256)", record.data["fingerprint"]),
        ("base (SHA-256)", result.spec.base.sha256 if result.spec.base else None),
        *((k, versions.get(k)) for k in ("torch", "transformers", "peft", "scikit-learn")),
    ]
    return "\n".join(f"- {k}: `{_code(str(v))}`" for k, v in pairs if v) + "\n"


def _code(text: str) -> str:
    """A user's text between backticks and inside a table."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")


def _listed(names: Iterable[object]) -> str:
    shown = [in_markdown(str(n)) for n in names]
    if len(shown) > 12:
        return f"{', '.join(shown[:10])} and {len(shown) - 10} more"
    return joined_by_and(shown)
