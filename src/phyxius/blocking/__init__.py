"""Migrations for code without an event loop: Django, Flask, Celery, plain scripts."""

from phyxius.blocking._background import keep_open, opened, run
from phyxius.blocking._migration import SyncMigration

__all__ = ["SyncMigration", "keep_open", "opened", "run"]
