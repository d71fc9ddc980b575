"""Evidence from the migrations of Django, of projects that are really migrated."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.test.utils import override_settings

from phyxius import Journal, create_controlled_clock, create_migration, define_migration
from phyxius.adapters import django as adapter
from phyxius.adapters.django import NotAskedError, migration_applied
from phyxius.fp import Err, Ok
from phyxius.migration import EvidenceFailure, SpecError
from phyxius.testing import run_in_place
from tests.servers import Standby, server

if not settings.configured:
    settings.configure(DATABASES={"default": {}}, USE_TZ=True)
    django.setup()

numbers = itertools.count(1)
MIGRATION = """
from django.db import migrations, models
class Migration(migrations.Migration):
    dependencies = {dependencies}
    replaces = {replaces}
    run_before = {run_before}
    operations = [{operations}]
"""
TABLE = "migrations.CreateModel(name={name!r}, fields=[('id', models.BigAutoField(primary_key=True))])"
CODE = "migrations.RunPython(migrations.RunPython.noop, migrations.RunPython.noop{hints})"


class Project:
    """A Django project with databases of its own, and apps whose migrations are files."""

    def __init__(self, directory: Path, databases: dict[str, dict[str, Any]], name: str) -> None:
        self.directory, self.databases, self.name = directory / name, databases, name
        for app in ("billing", "crm"):
            (self.directory / app / "migrations").mkdir(parents=True)
            (self.directory / app / "migrations" / "__init__.py").touch()
        self.opened: list[Any] = []

    def add(self, name: str, *after: str, app: str = "billing", ops: str | None = None, **more: Any) -> None:
        """Write a migration, which makes a table."""
        before = [self._key(each, app) for each in after]
        given = {"dependencies": before, "replaces": [], "run_before": [], **more}
        given["replaces"] = [self._key(each, app) for each in given["replaces"]]
        operations = TABLE.format(name=f"T{name}") if ops is None else ops
        self.forget()
        (self.directory / app / "migrations" / f"{name}.py").write_text(
            MIGRATION.format(operations=operations, **given)
        )

    def remove(self, *names: str) -> None:
        self.forget()
        for name in names:
            (self.directory / "billing" / "migrations" / f"{name}.py").unlink()

    def forget(self) -> None:
        """Have the files read anew, as by another build."""
        for each in [each for each in sys.modules if each.startswith(f"{self.name}.")]:
            if ".migrations" in each:
                del sys.modules[each]

    def migrate(self, *to: str, using: str = "default", **more: Any) -> None:
        call_command("migrate", *to, database=using, verbosity=0, interactive=False, **more)

    def run(self, sql: str, using: str = "default") -> None:
        with connections[using].cursor() as cursor:
            cursor.execute(sql)

    def asked(self, name: str, app: str = "billing", **more: Any) -> Any:
        """The payload, or why not."""
        answer: Any = asyncio.run(migration_applied(app, name, **more).check())  # type: ignore[arg-type]
        if type(answer) is Ok:
            return answer.value
        assert isinstance(answer.error, EvidenceFailure)
        return answer.error.reason

    @staticmethod
    def _key(name: str, app: str) -> tuple[str, ...]:
        return tuple(name.split(".")) if "." in name else (app, name)


@contextmanager
def made(directory: Path, monkeypatch: pytest.MonkeyPatch, databases: dict[str, dict[str, Any]]) -> Iterator[Project]:
    """A project that this process is set up for, as long as this runs."""
    project = Project(directory, databases, f"project{next(numbers)}")
    (project.directory / "__init__.py").touch()
    for app in ("billing", "crm"):
        (project.directory / app / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setitem(vars(connections), "settings", connections.configure_settings(databases))

    def note(connection: Any, **more: Any) -> None:
        project.opened.append(connection)

    connection_created.connect(note)
    with override_settings(INSTALLED_APPS=[f"{project.name}.billing", f"{project.name}.crm"]):
        try:
            yield project
        finally:
            connection_created.disconnect(note)
            for alias in databases:
                connections[alias].close()
                del connections[alias]
            project.forget()


def sqlite(path: Path, **more: Any) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), **more}


def postgresql(**more: Any) -> dict[str, Any]:
    engine, socket = "django.db.backends.postgresql", Path(server("postgresql").socket)
    return {"ENGINE": engine, "NAME": "postgres", "USER": "postgres", "HOST": str(socket.parent), **more}


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Three migrations in a row, on either database."""
    if request.param == "sqlite":
        database = sqlite(tmp_path / "shop.db")
    else:
        name = f"django_{next(numbers)}"
        server("postgresql").run(f"DROP DATABASE IF EXISTS {name}")
        server("postgresql").run(f"CREATE DATABASE {name}")
        database = postgresql(NAME=name)
    with made(tmp_path, monkeypatch, {"default": database}) as project:
        row(project)
        yield project


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The same with two databases."""
    databases = {"default": sqlite(tmp_path / "shop.db"), "reports": sqlite(tmp_path / "reports.db")}
    with made(tmp_path, monkeypatch, databases) as project:
        row(project)
        yield project


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The same on SQLite alone."""
    with made(tmp_path, monkeypatch, {"default": sqlite(tmp_path / "shop.db")}) as project:
        row(project)
        yield project


def row(project: Project) -> None:
    project.add("0041_customers")
    project.add("0042_sales", "0041_customers")
    project.add("0043_totals", "0042_sales")


def at(name: str, *aliases: str) -> dict[str, Any]:
    return {alias: {"at": [name]} for alias in aliases or ["default"]}


def test_a_migration_that_is_applied(project: Project) -> None:
    """It comes last, or another one after it; also if nothing but its row was written."""
    project.migrate("billing", "0042")
    assert project.asked("0042_sales") == project.asked("0041_customers") == at("0042_sales")
    project.migrate()
    assert project.asked("0042_sales") == at("0043_totals")
    project.migrate("billing", "0041")
    project.migrate("billing", "0043", fake=True)
    assert project.asked("0042_sales") == at("0043_totals")


def test_a_migration_that_is_not(project: Project) -> None:
    """Not yet, or not any more."""
    assert project.asked("0042_sales") == "default: nothing was ever migrated there: it has no table django_migrations"
    project.migrate("billing", "0041")
    assert project.asked("0042_sales") == "default: 0042_sales is not applied: it is at 0041_customers"
    project.migrate()
    assert project.asked("0043_totals")
    project.migrate("billing", "0042")
    assert project.asked("0043_totals") == "default: 0043_totals is not applied: it is at 0042_sales"
    project.migrate("billing", "zero")
    assert project.asked("0041_customers") == "default: 0041_customers is not applied: nothing of billing is"


def test_its_connections_are_closed(project: Project) -> None:
    """Each time anew, also if they are to persist, whatever came of it; and that of who asks stays as it is."""
    project.databases["default"]["CONN_MAX_AGE"] = None
    project.migrate("billing", "0042")
    connections["default"].ensure_connection()
    project.opened.clear()
    for name in ("0042_sales", "0043_totals"):
        project.asked(name)
    assert [each.connection for each in project.opened] == [None, None]
    assert connections["default"].connection is not None


async def test_on_an_event_loop(here: Project) -> None:
    """Django lets no database be asked there, so it is asked in a thread, also where plain checks run in place."""

    def migrate() -> None:
        # The thread's own connection, which nobody else can reach.
        with closing(connections["default"]):
            here.migrate("billing", "0042")

    await asyncio.to_thread(migrate)
    spec = define_migration(
        name="sales",
        phases={
            "old": {},
            "new": {"schema": migration_applied("billing", "0042_sales")},
            "newer": {"schema": migration_applied("billing", "0043_totals")},
        },
    )
    migration = create_migration(spec, journal=Journal(clock=create_controlled_clock()), run_sync=run_in_place)
    assert isinstance(await migration.advance(to="new"), Ok)
    refused = await migration.advance(to="newer")
    assert isinstance(refused, Err)
    assert "schema: default: 0043_totals is not applied: it is at 0042_sales" in refused.error.message


def test_a_branch(here: Project) -> None:
    """What is on the other branch is not applied, and the reason says that there are two."""
    here.migrate()
    here.add("0042_b", "0041_customers")
    several = "the code has 2 leaf nodes, 0042_b, 0043_totals"
    assert here.asked("0042_b") == f"default: 0042_b is not applied: it is at 0043_totals; {several}"
    assert here.asked("0042_sales") == at("0043_totals")
    here.add("0044_merge", "0043_totals", "0042_b", ops="")
    assert here.asked("0044_merge") == "default: 0044_merge is not applied: it is at 0043_totals"
    here.migrate()
    assert here.asked("0042_b") == here.asked("0044_merge") == at("0044_merge")


def test_what_this_build_does_not_know(here: Project) -> None:
    """A name that is misspelt, or cut off, or of a build that is newer or older; an app that is not there."""
    here.migrate()
    no = "billing has no migration {} in this build; {}".format
    assert here.asked("0042") == no("0042", "did you mean 0042_sales?")
    assert here.asked("0042_sale") == no("0042_sale", "did you mean 0042_sales?")
    assert here.asked("0042_slaes") == no("0042_slaes", "did you mean 0042_sales?")
    assert here.asked("004") == no("004", "did you mean 0041_customers, 0042_sales, 0043_totals?")
    assert here.asked("else") == no("else", "its last one is 0043_totals")
    assert here.asked("0042_sales", "shop") == "this build has no app shop"
    assert here.asked("0001_initial", "crm") == "crm has no migration 0001_initial in this build"
    here.remove("0043_totals")
    assert here.asked("0043_totals") == no("0043_totals", "did you mean 0042_sales?")
    assert here.asked("0042_sales") == at("0042_sales")
    with override_settings(MIGRATION_MODULES={"billing": None}):
        assert here.asked("0042_sales") == "billing has no migration 0042_sales in this build"


def test_a_history_with_a_hole(here: Project) -> None:
    """A row alone is not enough where what it depends on has none, however far back, and in whichever app."""
    here.add("0007_people", app="crm")
    here.add("0042_sales", "0041_customers", "crm.0007_people")
    here.migrate()
    assert here.asked("0043_totals")
    here.run("DELETE FROM django_migrations WHERE name = '0007_people'")
    hole = "default: {} is recorded as applied, and what it depends on is not: {}".format
    assert here.asked("0043_totals") == hole("0043_totals", "crm.0007_people")
    assert here.asked("0042_sales") == hole("0042_sales", "crm.0007_people")
    assert here.asked("0041_customers")
    here.run("DELETE FROM django_migrations WHERE name IN ('0041_customers')")
    assert here.asked("0043_totals") == hole("0043_totals", "billing.0041_customers, crm.0007_people")


def test_what_was_squashed_before_it_ran(here: Project) -> None:
    """The squashed one runs, and what it replaces is applied with it; also if the files of that are gone."""
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    reason = "default: 0042_sales is not applied, nor is 0041_squashed_0042, which replaces it: nothing of billing is"
    here.run("CREATE TABLE django_migrations (id integer PRIMARY KEY, app text, name text, applied datetime)")
    assert here.asked("0042_sales") == reason
    assert here.asked("0041_squashed_0042") == "default: 0041_squashed_0042 is not applied: nothing of billing is"
    here.migrate("billing", "0041_squashed_0042")
    for name in ("0041_customers", "0042_sales", "0041_squashed_0042"):
        assert here.asked(name) == at("0041_squashed_0042")
    here.add("0043_totals", "0041_squashed_0042")
    here.remove("0041_customers", "0042_sales")
    assert here.asked("0042_sales") == at("0041_squashed_0042")
    here.migrate()
    assert here.asked("0042_sales") == at("0043_totals")


def test_what_was_squashed_after_it_ran(here: Project) -> None:
    """The squashed one is applied where all that it replaces is, with a row or without."""
    here.migrate()
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    assert here.asked("0041_squashed_0042") == here.asked("0042_sales") == at("0043_totals")
    here.migrate()
    assert here.asked("0041_squashed_0042") == here.asked("0042_sales") == at("0043_totals")


def test_what_was_squashed_when_it_ran_in_part(here: Project) -> None:
    """The squashed one is not applied then, but what of it ran is."""
    here.migrate("billing", "0041")
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    reason = "{} is not applied: 0041_squashed_0042 is in part, and lacks billing.0042_sales; it is at 0041_customers"
    assert here.asked("0041_squashed_0042") == f"default: {reason.format('0041_squashed_0042')}"
    assert here.asked("0042_sales") == "default: 0042_sales is not applied: it is at 0041_customers"
    assert here.asked("0041_customers") == at("0041_customers")


def test_what_was_squashed_is_unapplied_by_an_older_build(here: Project) -> None:
    """It does not know of the row of the squashed one, and leaves it. So that row alone says nothing."""
    here.migrate()
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    here.migrate()
    here.remove("0041_squashed_0042")
    here.migrate("billing", "zero")
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT name FROM django_migrations")
        assert cursor.fetchall() == [("0041_squashed_0042",)]
    assert here.asked("0041_squashed_0042") == "default: 0041_squashed_0042 is not applied: nothing of billing is"
    assert here.asked("0042_sales").endswith("which replaces it: nothing of billing is")


def test_what_was_squashed_and_pruned(here: Project) -> None:
    """Once it replaces nothing any more, the squashed one stands for itself; of the rest this build knows nothing."""
    here.add("0041_squashed_0042", replaces=["0041_customers", "0042_sales"])
    here.migrate()
    here.remove("0041_customers", "0042_sales")
    here.add("0041_squashed_0042")
    here.add("0043_totals", "0041_squashed_0042")
    here.migrate("billing", prune=True)
    assert here.asked("0041_squashed_0042") == at("0043_totals")
    assert "billing has no migration 0042_sales in this build" in here.asked("0042_sales")


def test_one_of_two_databases_is_behind(two: Project) -> None:
    """Each is asked, unless it is said which, and the one that lacks the migration is named."""
    two.migrate()
    reason = "reports: nothing was ever migrated there: it has no table django_migrations"
    assert two.asked("0042_sales") == reason
    assert two.asked("0042_sales", using=["reports", "default"]) == reason
    assert two.asked("0042_sales", using=lambda: "default") == at("0043_totals")
    two.migrate("billing", "0041", using="reports")
    assert two.asked("0042_sales") == "reports: 0042_sales is not applied: it is at 0041_customers"
    two.migrate("billing", "0042", using="reports")
    assert two.asked("0042_sales") == at("0043_totals", "default") | at("0042_sales", "reports")
    assert two.asked("0042_sales", using="other") == "DATABASES has no other, but default, reports"


class ByApp:
    """What Django's own docs show: the app has a database of its own."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "reports" if app_label == "billing" else None


class ByModel:
    """Some models have one, by their names or by their classes."""

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        by_class = getattr(hints.get("model"), "__name__", "") == "Classy"
        return db == "reports" if by_class or model_name in {"t0042_sales", "after"} or "late" in hints else None


class Nowhere:
    def allow_migrate(self, *args: Any, **hints: Any) -> bool:
        return False


def test_where_the_routers_keep_the_app_out(two: Project) -> None:
    """There Django records what it never did, so the row counts for nothing."""
    with override_settings(DATABASE_ROUTERS=[ByApp()]):
        two.migrate()
        alone = "the routers let it be done in reports alone; ask there"
        assert two.asked("0042_sales", using="default") == alone
        assert two.asked("0042_sales") == "reports: nothing was ever migrated there: it has no table django_migrations"
        two.migrate(using="reports")
        assert two.asked("0042_sales") == at("0043_totals", "reports")
        kept = (
            "default: the routers keep it out of there, so that it does nothing, even where it is recorded as applied"
        )
        assert two.asked("0042_sales", using=["default", "reports"]) == kept
    with override_settings(DATABASE_ROUTERS=[Nowhere()]):
        assert two.asked("0042_sales") == "the routers let it be done in no database"
        assert "the routers keep it out of there" in two.asked("0042_sales", using="reports")


def the_model(app_label: str, name: str) -> type:
    """The only one that this build still has."""
    if name != "Classy":
        raise LookupError
    return type("Classy", (), {})


@pytest.mark.parametrize(
    "part",
    [
        TABLE.format(name="T0042_sales"),
        CODE.format(hints=", hints={'late': True}"),
        "migrations.RenameModel('Before', 'After')",
        "migrations.AlterField('T0042_sales', 'id', models.IntegerField())",
        f"migrations.SeparateDatabaseAndState([{TABLE.format(name='T0042_sales')}], [])",
        TABLE.format(name="Classy"),
    ],
)
def test_where_the_routers_keep_a_part_out(two: Project, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of a migration has to be done somewhere, and in each database some part."""
    monkeypatch.setattr(apps, "get_model", the_model)
    two.add("0042_sales", "0041_customers", ops=f"{TABLE.format(name='Plain')}, {part}")
    for alias in ("default", "reports"):
        two.migrate("billing", "0043", fake=True, using=alias)
    with override_settings(DATABASE_ROUTERS=[ByModel()]):
        assert two.asked("0042_sales") == at("0043_totals", "default", "reports")
        there = "the routers have a part of it done in reports; ask there as well"
        assert two.asked("0042_sales", using="default") == there
        assert two.asked("0042_sales", using="reports") == at("0043_totals", "reports")
        two.add("0042_sales", "0041_customers", ops=part)
        assert two.asked("0042_sales") == at("0043_totals", "reports")
        two.add("0042_sales", "0041_customers", ops="migrations.SeparateDatabaseAndState([], [])")
        assert two.asked("0042_sales") == at("0043_totals", "default", "reports")


def test_an_alias_that_mirrors_another(two: Project) -> None:
    """By that the project says that it is a replica, or the same; it has to be asked beside the other."""
    connections.settings["reports"]["TEST"]["MIRROR"] = "default"
    for alias in ("default", "reports"):
        two.migrate(using=alias)
    mirrors = "reports: it mirrors default in tests, so it may be a replica; ask default"
    assert two.asked("0042_sales", using="reports") == mirrors
    assert two.asked("0042_sales", using="default") == at("0043_totals")
    assert two.asked("0042_sales") == at("0043_totals", "default", "reports")


def test_a_replica_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be old."""
    name = f"django_{next(numbers)}"
    server("postgresql").run(f"CREATE DATABASE {name}")
    with Standby(server("postgresql")) as standby:
        host = standby.url().partition("host=")[2]
        databases = {"default": postgresql(NAME=name), "replica": postgresql(NAME="postgres", HOST=host)}
        with made(tmp_path, monkeypatch, databases) as project:
            row(project)
            project.migrate()
            reason = "replica: it is a replica, which may lag behind; give using= the alias of the primary"
            assert project.asked("0042_sales") == project.asked("0042_sales", using="replica") == reason
            assert project.asked("0042_sales", using="default") == at("0043_totals")


def test_what_mysql_is_asked() -> None:
    """No driver that Django wants for it is here, so it is asked by its own client."""
    says = server("mariadb").run(f"SELECT CASE WHEN {adapter._READ_ONLY['mysql']} THEN 1 ELSE 0 END")
    assert says.strip() == "0"


def test_a_database_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and no secret is."""
    away = postgresql(HOST="127.0.0.1", PORT="1", USER="app", PASSWORD="hunter2")
    databases = {"default": sqlite(tmp_path / "no" / "where.db"), "away": away}
    with made(tmp_path, monkeypatch, databases) as project:
        row(project)
        with pytest.raises(NotAskedError, match=r"^default: OperationalError: unable to open") as caught:
            project.asked("0042_sales")
        with pytest.raises(NotAskedError, match=r"^away: OperationalError: .*127\.0\.0\.1") as caught:
            project.asked("0042_sales", using="away")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_without_django_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The evidence may be defined before; asked, it says what to do."""
    script = (
        "import asyncio\nfrom phyxius.adapters.django import migration_applied\n"
        "evidence = migration_applied('billing', '0042_sales')\nasyncio.run(evidence.check())"
    )
    monkeypatch.setattr(apps, "ready", False)
    with pytest.raises(NotAskedError, match="Django is not set up here"):
        asyncio.run(migration_applied("billing", "0042_sales").check())  # type: ignore[arg-type]
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    wanted = "Django is not set up here; set DJANGO_SETTINGS_MODULE, and call django.setup() first"
    assert ran.stderr.splitlines()[-1].endswith(f"NotAskedError: {wanted}")


@pytest.mark.parametrize("name", ["", "zero", "__first__", "__latest__", "0042 sales", "billing.0042_sales", 42, None])
def test_what_is_no_name(name: Any) -> None:
    """It has to be a whole one, and the app goes before it."""
    with pytest.raises(SpecError, match='needs a name, such as "0042_sales"'):
        migration_applied("billing", name)
    with pytest.raises(SpecError, match='needs the label of an app, such as "billing"'):
        migration_applied(name, "0042_sales")


@pytest.mark.parametrize("using", ["", [], (), [None], ["default", 3], 3, b"default"])
def test_no_database_at_all(here: Project, using: Any) -> None:
    """Nothing would be asked then; a callable is found out when it is asked."""
    with pytest.raises(SpecError, match="the alias of a database is wanted"):
        migration_applied("billing", "0042_sales", using=using)
    with pytest.raises(SpecError, match="the alias of a database is wanted"):
        here.asked("0042_sales", using=lambda: using)
