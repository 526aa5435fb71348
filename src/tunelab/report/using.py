"""What the page says of going on: the commands that make a study again, and use its model."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tunelab.analysis import Summary
from tunelab.analysis.folds import final_trial
from tunelab.analysis.summary import best_trial
from tunelab.core.study_folder import StudyRecord, artifact_dir

__all__ = [
    "commands",
    "how_to_use",
    "settings_as_yaml",
]


def commands(record: StudyRecord) -> str:
    """The commands that make the study again, continue it, and write this report anew."""
    folder = _near(record.directory)
    study = _quoted((folder / "study.yaml").as_posix())
    lines = []
    if record.settings["command"].startswith("tunelab "):
        lines += ["# as it was run", record.settings["command"], ""]
    lines += [
        "# the same study from its resolved settings; only what is missing is run",
        f"tunelab compare {study}",
        "",
        "# this report again",
        f"tunelab report {_quoted(folder.as_posix())}",
    ]
    return "\n".join(lines)


def how_to_use(record: StudyRecord, summary: Summary) -> dict[str, str] | None:
    """The commands and the Python that use the recommended model, and what it is; None without."""
    best = best_trial(record, summary, summary.answer.take)
    if best is None:
        return None
    about = (
        f"{best.spec.method.label}, seed {best.spec.seed}: of the chosen method, the seed with the "
        "best score on validation."
    )
    if summary.cross_fitted is not None:
        best = final_trial(record)
        study = _quoted(_near(record.directory).as_posix())
        if best is None:
            return {
                "about": "Each trial left a part of the rows out, to test them; the classifier to "
                "use is trained on all.",
                "shell": f"tunelab train --from-study {study}",
                "python": "",
            }
        about = (
            f"{best.spec.method.label}, trained on all rows: none are left to test it, and what to "
            "expect is the cross-fitted score of its method."
        )
    folder = artifact_dir(_near(record.directory), best.spec.trial_id).as_posix()
    labels = "predict_labels" if record.task == "multilabel" else "predict"
    return {
        "about": about,
        "shell": f'tunelab predict {_quoted(folder)} "a quiet, wonderful film"',
        "python": "import tunelab\n\n"
        f"classifier = tunelab.load({json.dumps(folder, ensure_ascii=False)})\n"
        f'classifier.{labels}(["a quiet, wonderful film"])\n'
        'classifier.predict_proba(["a quiet, wonderful film"])',
    }


def _near(directory: Path) -> Path:
    """The folder as seen from here, so that a report says nothing of the machine where it can."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./+@:-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def settings_as_yaml(record: StudyRecord) -> str:
    """The study's resolved settings, as study.yaml has them, without its trials."""
    import yaml

    shown = {k: v for k, v in record.settings.items() if k != "trials"}
    return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
