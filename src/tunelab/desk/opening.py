"""The page's part of a server: who may use it, its studies, what is printed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tunelab.core import study_folder
from tunelab.core.files import scratch_folder
from tunelab.desk.desk import Desk
from tunelab.desk.doors import desk_routes
from tunelab.desk.runs import RunsOfStudies
from tunelab.desk.session import Session
from tunelab.desk.studies import StudiesOfFolders
from tunelab.serve.service import Service
from tunelab.serve.web import MoreRoutes

__all__ = ["of_classifiers", "of_studies", "page_of_server"]


def of_studies(given: Sequence[str]) -> tuple[Path, ...]:
    """Which of the folders that a server is given ([NAME=]FOLDER) are studies, or hold some."""
    return tuple(
        _folder_given(g) for g in given if study_folder.is_study(_folder_given(g)) or _holds(g)
    )


def of_classifiers(given: Sequence[str]) -> tuple[str, ...]:
    """Which of these stand for a classifier: a study does, a folder of some not."""
    return tuple(g for g in given if not _holds(g))


def _folder_given(given: str) -> Path:
    """The folder of FOLDER or NAME=FOLDER."""
    folder = Path(given).expanduser()
    return folder if folder.exists() else Path(given.partition("=")[2] or given).expanduser()


def _holds(given: str) -> bool:
    """Whether studies lie in a folder that is none itself."""
    folder = _folder_given(given)
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
