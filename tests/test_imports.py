"""What a user gets from `import phyxius`: the names of each public face, and nothing else loaded."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.source import FACES, MODULES, Module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

faces = pytest.mark.parametrize("face", FACES, ids=[face.name for face in FACES])

LIST_LOADED = """
import sys
before = set(sys.modules)
import phyxius
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


@faces
def test_a_face_is_sorted(face: Module) -> None:
    """The public names of a floor stand in plain sorted order, each once."""
    exports = importlib.import_module(face.name).__all__
    assert list(exports) == sorted(set(exports))


@faces
def test_a_face_shows_its_own_floor(face: Module) -> None:
    """Every public name is there, and comes from a module of its own floor."""
    origins = {imported.name: imported.module for imported in face.imports}
    module = importlib.import_module(face.name)
    for name in module.__all__:
        defined_in = getattr(getattr(module, name), "__module__", None)
        for origin in (origins.get(name, face.name), defined_in):
            if isinstance(origin, str) and origin.partition(".")[0] == "phyxius":
                assert origin == face.name or origin.startswith(f"{face.name}."), f"{name} is from {origin}"
        assert origins.get(name, face.name).startswith(face.name), f"{name} is not of this floor"


@pytest.mark.skipif("phyxius" not in MODULES, reason="the root face is not there yet")
def test_the_root_shows_every_floor() -> None:
    """The root re-exports the names of all floors, sorted, and each is the same object there."""
    root = importlib.import_module("phyxius")
    floors = {face.name: importlib.import_module(face.name) for face in FACES}
    names = {name: floor for floor in floors.values() for name in floor.__all__}
    assert list(root.__all__) == sorted(names)
    assert sum(len(floor.__all__) for floor in floors.values()) == len(names), "a name is on two floors"
    for name, floor in names.items():
        assert getattr(root, name) is getattr(floor, name)


def test_importing_loads_nothing_else(tmp_path: Path) -> None:
    """`import phyxius` loads the standard library, attrs and typing_extensions, and no other library."""
    run = [sys.executable, "-c", LIST_LOADED]
    loaded = set(subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split())
    assert loaded - sys.stdlib_module_names <= {"attr", "attrs", "phyxius", "typing_extensions"}


def public_objects(face: Module) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a face, and the public methods of those classes."""
    module = importlib.import_module(face.name)
    for name in module.__all__:
        exported = getattr(module, name)
        if not isinstance(exported, type) and not inspect.isroutine(exported):
            continue  # an alias or a constant has nowhere to keep a docstring
        yield name, exported
        for attribute, member in vars(exported).items() if isinstance(exported, type) else ():
            method = getattr(member, "__func__", member)
            if not attribute.startswith("_") and (inspect.isroutine(method) or isinstance(method, property)):
                yield f"{name}.{attribute}", method


@faces
def test_public_names_have_docstrings(face: Module) -> None:
    """Every public class, function and method says what it does."""
    undocumented = [name for name, item in public_objects(face) if not (item.__doc__ or "").strip()]
    assert not undocumented
