"""The Celery application of the docs, run by a real worker with a real Redis."""

from __future__ import annotations

from pathlib import Path

from tests.docs.support import HOW_TO, calls, make_stores, recorders
from tests.programs import run, running
from tests.servers import server

CELERY = ["-m", "celery", "-A", "tasks"]


def test_tasks_follow_the_phase(tmp_path: Path) -> None:
    """Each child opens the stores after its fork, records the phase and the id of the task, and closes at its end."""
    path = tmp_path / "migrations.db"
    make_stores(path)
    env = {"MIGRATIONS": str(path), "BROKER": server("redis").url()}
    with running([*CELERY, "worker", "--concurrency", "2", "--loglevel", "INFO"], HOW_TO / "celery", env) as worker:
        worker.wait_for("ready")
        sent = []
        for number in (7, 8, 9):
            done = run([*CELERY, "call", "tasks.save_quote", "-a", f"[{number}]"], HOW_TO / "celery", env)
            assert done.returncode == 0, done.stderr
            sent.append(done.stdout.strip())
            worker.wait_for(rf"{sent[-1]}\] succeeded in .*'quote {number} is in the old table'")
        assert worker.end() == 0, worker.output
    assert sorted(calls(path, "quote.save"), key=str) == sorted((("expand", "success", task) for task in sent), key=str)
    assert [closed for _, closed in recorders(path)] == [1, 1]
