"""`--to docker`: a folder that docker makes an image of, which serves an exported classifier.

Nothing is fetched but what requirements.txt names: the model and tunelab itself lie in it.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tunelab.core.artifact import open_artifact, refuse_several_labels
from tunelab.core.errors import ArtifactError
from tunelab.core.extras import install_line
from tunelab.core.files import write_text
from tunelab.core.values import Artifact
from tunelab.exporting.agreement import JudgedTexts
from tunelab.exporting.merging import new_folder
from tunelab.exporting.targets import Exported, export_classifier
from tunelab.models import exported, foreign

__all__ = ["DockerFolder", "write_docker_folder", "locked_requirements"]

# What `tunelab serve` runs on; what runs the graph comes to it.
_SERVER = (
    "charset-normalizer", "click", "httptools", "huggingface-hub", "jinja2", "numpy", "peft",
    "prometheus-client", "pyarrow", "pydantic", "pyyaml", "rich", "safetensors", "scipy",
    "starlette", "tokenizers", "torch", "transformers", "uvicorn", "uvloop",
)  # fmt: skip
_WHEELS = "https://download.pytorch.org/whl"
_DOCKERFILE = """\
# docker build -t {name} . && docker run -p 8080:8080 {name}
# -e TUNELAB_API_KEYS=secret asks for a key; docs/guide/serving.md has the server's other settings.
FROM python:{python}-slim
WORKDIR /srv
COPY requirements.txt requirements.txt
RUN pip install --no-cache-dir --no-deps -r requirements.txt
COPY tunelab tunelab
COPY model model
RUN useradd --create-home serve
USER serve
ENV PYTHONPATH=/srv PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health')"]
CMD ["python", "-m", "tunelab", "serve", "{name}=model", "--host", "0.0.0.0", "--port", "8080"]
"""


@dataclass(frozen=True, slots=True)
class DockerFolder:
    """What was written: its `directory`, the `model` in it, and how that was made; `exported` is
    None where the classifier was an export already, which was copied.
    """

    directory: Path
    model: Artifact
    exported: Exported | None


def write_docker_folder(
    folder: Path | str,
    out_dir: Path | str,
    judged: JudgedTexts | None,
    *,
    allow: bool = False,
    keep_texts: bool = False,
    trust_remote_code: bool = False,
    model: str | None = None,
) -> DockerFolder:
    """Write a folder with Dockerfile, locked requirements, tunelab and a classifier as ONNX.

    An export, such as one in int8, is taken as it is; anything else is exported to onnx, judged on
    `judged` (None only for an export) as `export_classifier` does. Raises ArtifactError, and writes
    nothing, where that is refused, or where it is not known what tunelab was installed with.
    """
    original = foreign.open_folder(folder, model=model)
    refuse_several_labels(original, "a server")
    kind = original.manifest["kind"]
    runtime = exported.RUNTIMES.get(kind, "onnxruntime")
    requirements = locked_requirements((*_SERVER, runtime))
    made = None
    with new_folder(out_dir, [original.directory]) as (staging, out):
        if judged is None:
            exported.open_exported(original).save(_new(staging / "model"))
        else:
            made = export_classifier(
                folder,
                "onnx",
                staging / "model",
                judged,
                allow=allow,
                keep_texts=keep_texts,
                trust_remote_code=trust_remote_code,
                model=model,
            )
        name = re.sub(r"[^a-z0-9]+", "-", out.resolve().name.lower()).strip("-") or "classifier"
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        write_text(staging / "Dockerfile", _DOCKERFILE.format(name=name, python=python))
        write_text(staging / "requirements.txt", requirements)
        package = Path(__file__).parents[1]
        shutil.copytree(
            package, staging / package.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return DockerFolder(out, open_artifact(out / "model"), made)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def locked_requirements(roots: Sequence[str]) -> str:
    """Everything that packages need, each with the version installed here, as pip reads it."""
    versions = dict(sorted(_with_all_they_need(roots)))
    builds = sorted({v.partition("+")[2] for v in versions.values() if "+" in v})
    head = "".join(f"--extra-index-url {_WHEELS}/{build}\n" for build in builds)
    return head + "".join(f"{name}=={version}\n" for name, version in versions.items())


def _with_all_they_need(roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and versions of packages and, in turn, of what they need in this environment."""
    from packaging.requirements import Requirement

    waiting, seen = [(name, "") for name in roots], set()
    while waiting:
        name, extra = waiting.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError as e:
            raise ArtifactError(
                f"Export to docker: needs {name}, which this environment lacks, to lock its "
                f"version. Install: {install_line('serve')}"
            ) from e
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        yield name, package.version
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, e) for e in ("", *needed.extras)]
