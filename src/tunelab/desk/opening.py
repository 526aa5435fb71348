"""The page's part of a server: who may use it, its studies, what is printed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tunelab.core import study_folder
from tunelab.core.artifact import MANIFEST
from tunelab.core.files import scratch_folder
from tunelab.desk.desk import Desk
from tunelab.desk.doors import desk_routes
from tunelab.desk.runs import RunsOfStudies
from tunelab.desk.session import Session
from tunelab.desk.studies import StudiesOfFolders
from tunelab.serving.service import Service
from tunelab.serving.web import MoreRoutes

__all__ = ["classifiers_among", "page_of_server", "studies_among"]


# What a server is given: folders, some by a name of the user's.
Given = Sequence[tuple[str | None, Path]]
# A folder with one of these is a classifier.
_CLASSIFIER_FILES = (MANIFEST, "adapter_config.json", "config.json")


def studies_among(given: Given) -> tuple[Path, ...]:
    """Which of the folders are studies, or hold some."""
    folders = [folder.expanduser() for _, folder in given]
    return tuple(f for f in folders if study_folder.is_study(f) or _holds_studies(f))


def classifiers_among(given: Given) -> list[tuple[str | None, Path]]:
    """Which of these stand for a classifier: a study does, a folder of some does not, unless it is
    a classifier itself.
    """
    return [
        (name, folder)
        for name, folder in given
        if any((folder.expanduser() / mark).is_file() for mark in _CLASSIFIER_FILES)
        or not _holds_studies(folder.expanduser())
    ]


def _holds_studies(folder: Path) -> bool:
    return not study_folder.is_study(folder) and bool(study_folder.find_studies(folder))


@contextmanager
def page_of_server(folders: Sequence[Path]) -> Iterator[Callable[[Service, str], MoreRoutes]]:
    """What adds the page to a server, for `run_server`; in the end its scratch is removed.

    `folders`: of studies, or studies, that the page may show.
    """
    with scratch_folder("tunelab-page-") as scratch:

        def more(service: Service, address: str) -> MoreRoutes:
            session = Session(urlsplit(address).port or 80)
            studies = StudiesOfFolders(tuple(folders), RunsOfStudies(scratch))
            desk = Desk(session, scratch, studies)
            link = f"{address}/?token={session.token}"
            return MoreRoutes(
                desk_routes(desk, service), (f"Open the page: {link}",), desk.stopping.set
            )

        yield more
