"""Evidence from the revisions of Alembic, of projects that are really migrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from phyxius.adapters.alembic import at_revision
from phyxius.migration import SpecError
from tests.projects import Project
from tests.servers import server


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """Three revisions in a row."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "postgresql":
        server("postgresql").run("DROP TABLE IF EXISTS versions")
        url = server("postgresql").url("psycopg")
    project = Project(tmp_path, url)
    for revision, after in (("0041", []), ("0042", ["0041"]), ("0043", ["0042"])):
        project.add(revision, *after)
    yield project
    project.engine.dispose()


def test_a_revision_that_is_applied(project: Project) -> None:
    """It is at it, or past it; the scripts may also be found by the `alembic.ini`."""
    project.upgrade("0042")
    assert project.asked("0042") == project.asked("0041") == {"heads": ["0042"]}
    project.upgrade("head")
    assert project.asked("0042", script_location=project.ini) == {"heads": ["0043"]}


def test_a_revision_that_is_not(project: Project) -> None:
    """Not yet, or not any more."""
    assert project.asked("0042") == "no revision is applied there: versions is empty, or not there"
    project.upgrade("0041")
    assert project.asked("0042") == "0042 is not applied: it is at 0041"
    project.upgrade("head")
    assert project.asked("0043")
    command.downgrade(project.config, "0042")
    assert project.asked("0043") == "0043 is not applied: it is at 0042"
    command.downgrade(project.config, "base")
    assert project.asked("0041") == "no revision is applied there: versions is empty, or not there"


def test_a_branch(project: Project) -> None:
    """Each head counts; what is on the other branch is not applied, and the reason says that there are two."""
    project.add("b042", "0041")
    project.upgrade("0043")
    assert project.asked("b042") == "b042 is not applied: it is at 0043; the scripts have 2 heads, 0043, b042"
    project.upgrade("heads")
    assert project.asked("b042") == project.asked("0042") == {"heads": ["0043", "b042"]}
    project.add("0044", "0043", "b042")
    assert project.asked("0044") == "0044 is not applied: it is at 0043, b042"
    project.upgrade("heads")
    assert project.asked("b042") == project.asked("0042") == {"heads": ["0044"]}


def test_a_revision_that_another_depends_on(project: Project) -> None:
    """It is applied with that, and Alembic does not list it among the heads then."""
    project.add("d001", depends_on="0042")
    project.upgrade("d001")
    assert project.asked("0042") == {"heads": ["d001"]}
    assert project.asked("0043") == "0043 is not applied: it is at d001; the scripts have 2 heads, 0043, d001"


def test_without_the_scripts(project: Project) -> None:
    """Only the revision itself is enough, since nothing tells what is past it."""
    project.upgrade("0042")
    assert project.asked("0042", script_location=None) == {"heads": ["0042"]}
    assert project.asked("0041", script_location=None).startswith("it is at 0042, and not at 0041; script_location=")


def test_what_the_scripts_do_not_know(project: Project, tmp_path: Path) -> None:
    """A revision that is misspelt, a database that a newer build has migrated, a directory without scripts."""
    project.upgrade("head")
    assert "the scripts do not tell: Can't locate revision identified by '0099'" in project.asked("0099")
    project.add("0044a", "0043", branch_label="shop")
    for part in ("0044", "shop", "004"):
        assert "0044" in project.asked(part) or "tell" in project.asked(part)
        assert isinstance(project.asked(part), str), "by how it begins, or by a label, another build may see another"
    with project.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE versions SET version_num = '0044'")
    assert project.asked("0042") == "the scripts have no revision 0044, but 0044a; it is at 0044"
    with project.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE versions SET version_num = '0050'")
    assert project.asked("0042").startswith("it is at 0050, and the scripts do not tell: Can't locate revision")
    assert "the scripts do not tell" in project.asked("0042", script_location=tmp_path / "nowhere")


def test_one_of_two_databases_is_behind(project: Project, tmp_path: Path) -> None:
    """Each is asked, and the one that lacks the revision is named."""
    behind = Project(tmp_path / "other", f"sqlite:///{tmp_path / 'behind.db'}")
    for revision, after in (("0041", []), ("0042", ["0041"])):
        behind.add(revision, *after)
    project.upgrade("head")
    behind.upgrade("0041")
    both = [project.engine, behind.engine]
    assert project.asked("0042", both) == "0042 is not applied: it is at 0041"
    behind.upgrade("0042")
    assert project.asked("0042", both) == {"heads": ["0043"]}
    behind.engine.dispose()


@pytest.mark.parametrize("revision", ["head", "HEADS", "base", "", "-1", "+1", "shop@head", 42, None])
def test_what_is_no_revision_by_itself(revision: Any) -> None:
    """What "head" is another build may see otherwise."""
    with pytest.raises(SpecError, match="needs the whole id of a revision"):
        at_revision(sa.create_engine("sqlite://"), revision)
