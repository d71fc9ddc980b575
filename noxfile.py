"""The sessions that CI runs: `nox` runs the first four, `nox -s prove` and `nox -s bench` the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
# The Python that runs nox is always among them, so that at least one is there.
PYTHONS = sorted({"3.11", "3.12", "3.13", f"3.{sys.version_info.minor}"})
CHECKED = ("src", "tests", "docs", "conftest.py", "noxfile.py")
# Not the oldest: there CPython now and then hangs in what ends greenlets while it is traced. If it is not here, nothing
# is measured, but all is tested.
MEASURED = "3.13"
# A file stays whole: the code blocks of a page build on each other. Each process starts servers of its own.
ON_ALL_CORES = ("--numprocesses=logical", "--maxprocesses=4", "--dist=loadfile")

nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.error_on_missing_interpreters = False  # nor under CI, where the default is to fail
nox.options.download_python = "never"
nox.options.default_venv_backend = "virtualenv"  # uv caches the wheel of "." and would test an old one


def install(session: nox.Session, *groups: str, package: bool = True) -> None:
    """Install dependency groups and the package, built as it would be for a user."""
    here = ["."] if package else []
    session.install(*here, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install(session, "lint", package=False)
    paths = [path for path in CHECKED if Path(path).exists()]
    session.run("ruff", "check", *paths)
    session.run("ruff", "format", "--check", *paths)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, and that what must not check does not."""
    install(session, "typing")
    session.env["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"  # else it asks the network for a newer one
    session.run("mypy")
    session.run("pyright", "--warnings")
    session.run("pytest", "tests/typing", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests and the code blocks of the docs; on one Python also require full coverage."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", *session.posargs)
    elif session.python != MEASURED:  # to measure it takes as long again, and each says the same
        session.run("pytest", *ON_ALL_CORES)
    else:
        session.run("pytest", *ON_ALL_CORES, "--cov", "--cov-report=term-missing:skip-covered")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the docs; a warning or a dangling reference is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-WnEq", "--keep-going", "docs", "docs/_build/html", *session.posargs)


@nox.session
def prove(session: nox.Session) -> None:
    """Run the long proofs."""
    install(session, "test")
    session.run("pytest", "-m", "prove", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks."""
    install(session, "bench")
    session.run("pytest", "tests/benchmarks", *session.posargs)
