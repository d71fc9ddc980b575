"""The rules that the source must obey, read from its syntax trees."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.source import CORE, MODULES, RANKS, ROOT, Import, Module, full_name, is_private, renamed

pytestmark = pytest.mark.skipif(not MODULES, reason="the source tree is not here")

MAX_LINES = 450
CORE_LIBRARIES = {"attr", "attrs", "typing_extensions"}
# Every `except` that catches all, with the boundary that it guards.
BROAD_EXCEPTS: dict[str, str] = {
    "phyxius.adapters._recorder": "the boundary of the store: a recorder goes on trying",
    "phyxius.adapters._records": "what was observed is foreign, and may not even be readable",
    "phyxius.adapters.sqlalchemy._lane": "drivers raise errors of their own while they connect",
    "phyxius.blocking._background": "what is open is foreign; one that cannot be closed keeps no other open",
    "phyxius.cli._advance": "after an interrupt the store may raise anything; it is told where to look instead",
    "phyxius.cli._app": "what an application raises when it is imported or made is told in one line",
    "phyxius.cli._check": "who watches waits for a store that cannot be asked for a while",
    "phyxius.cli._command": "the boundary of the command: whatever keeps it from its work is told in one line",
    "phyxius.cli._demo._worker": "the shop of the demonstration goes on serving, and its clients are told",
    "phyxius.cli._status": "a store may raise anything, which hides no other migration",
    "phyxius.cli._words": "a foreign __repr__",
    "phyxius.clock._portal": "what a thread raises is raised again where its answer is awaited",
    "phyxius.clock._threads": "what a thread raises is raised again where its answer is awaited",
    "phyxius.handler._dual_write": "what a side raises is told, and raised on or logged",
    "phyxius.handler._event": "the __str__ of a foreign exception may raise",
    "phyxius.handler._parity": "foreign comparators; a comparison that fails is recorded as a failure",
    "phyxius.handler._recording": "a failing append never breaks the handler",
    "phyxius.handler._redaction": "a foreign hook that raises costs the event a value, and nobody else anything",
    "phyxius.handler._shadow": "what the new path raises reaches the record, and nobody else",
    "phyxius.journal._journal": "subscribers and emit are foreign, and never break append",
    "phyxius.migration._advance": "the boundary of the phase store",
    "phyxius.migration._audit": "a failing journal changes no answer, and details are foreign objects",
    "phyxius.migration._inquiry": "whoever watches is foreign, and changes no answer",
    "phyxius.migration._wording": "a foreign __repr__ or __str__",
    "phyxius.migration._window": "a `where` that raises matches",
}

CLOCK_READS = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time|thread_time|clock_gettime)(_ns)?"
    r"|(.+\.)?_?(datetime\.(now|utcnow|today)|date\.today)"
    r"|(.+\.)?(_?loop|get_(running|event)_loop\(\))\.time"
)
CORE_MODULES = [module for module in MODULES.values() if module.part in CORE]
all_modules = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
core_modules = pytest.mark.parametrize("module", CORE_MODULES, ids=[module.name for module in CORE_MODULES])


def fault(module: Module, imported: Import) -> str | None:
    """Say what is wrong with an import, if anything is."""
    target = imported.module
    if target.partition(".")[0] != "phyxius":
        return None
    if target == "phyxius" and f"phyxius.{imported.name}" in MODULES:  # `from phyxius import clock`
        target = f"phyxius.{imported.name}"
    part = target.partition(".")[2].partition(".")[0]
    if not part:
        return "imports the root façade"
    if not module.part:
        return None if part in CORE and target == f"phyxius.{part}" else "re-exports more than the floors"
    if part == module.part:
        return None
    if RANKS[part] >= RANKS[module.part]:
        return f"imports {part}, which is not below it"
    if is_private(f"{target}.{imported.name or ''}".rstrip(".")):
        return "reaches behind the public face"
    if part in CORE and imported.name and imported.name not in (MODULES[target].exports or ()):
        return f"imports {imported.name}, which {target}.__all__ does not name"
    return None


@all_modules
def test_it_imports_only_from_below(module: Module) -> None:
    """A module imports its own floor and the faces of lower ones, never upwards, not even for typing."""
    assert module.part in {"", *RANKS}, f"give {module.part!r} a rank in tests/source.py"
    faults = [f"{module.path}:{i.line}: {problem}" for i in module.imports if (problem := fault(module, i))]
    assert not faults, "\n".join(faults)


@core_modules
def test_the_core_imports_at_the_top(module: Module) -> None:
    """No core module hides an import in a function, or behind a name that is put together."""
    functions = [n for n in ast.walk(module.tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    hidden = [i.line for f in functions for n in ast.walk(f) for i in module.imports_of(n)]
    calls = [n for n in ast.walk(module.tree) if isinstance(n, ast.Call)]
    hidden += [n.lineno for n in calls if ast.unparse(n.func).endswith(("__import__", "import_module"))]
    assert not hidden, f"imports inside functions or by name, lines {hidden}"


@core_modules
def test_the_core_depends_on_little(module: Module) -> None:
    """The core imports the standard library, attrs and typing_extensions, and nothing else."""
    allowed = sys.stdlib_module_names | CORE_LIBRARIES | {"phyxius"}
    assert not {i.module for i in module.imports if i.module.partition(".")[0] not in allowed}


def test_there_are_no_import_cycles() -> None:
    """The modules can be put in an order in which each imports only earlier ones."""
    graph = {
        module.name: {
            submodule if (submodule := f"{i.module}.{i.name}") in MODULES else i.module
            for i in module.imports
            if i.module in MODULES
        }
        for module in MODULES.values()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


@all_modules
def test_only_the_system_clock_reads_the_time(module: Module) -> None:
    """No module but the system clock asks the operating system what time it is."""
    if module.name == "phyxius.clock._system":
        return
    names = renamed(module.tree)
    used = [node for node in ast.walk(module.tree) if isinstance(node, (ast.Attribute, ast.Name))]
    reads = {node.lineno for node in used if CLOCK_READS.fullmatch(full_name(node, names))}
    assert not reads, f"reads the time, lines {sorted(reads)}"


@all_modules
def test_broad_excepts_are_listed(module: Module) -> None:
    """What catches every exception is on the list above, with a reason, and nothing else is."""
    lines = [node.lineno for node in ast.walk(module.tree) if catches_all(node)]
    listed = module.name in BROAD_EXCEPTS
    assert bool(lines) == listed, f"broad excepts on lines {lines}; listed: {listed}"


def test_the_list_of_broad_excepts_is_current() -> None:
    """Each entry of the list is about a module that exists, and gives a reason."""
    assert BROAD_EXCEPTS.keys() <= MODULES.keys()
    assert all(BROAD_EXCEPTS.values())


def catches_all(node: ast.AST) -> bool:
    """Whether a node is ``except:``, or names ``Exception`` in an ``except`` or a ``suppress``."""
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            return True
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        caught = node.args
    else:
        return False
    return any(ast.unparse(each) in {"Exception", "BaseException"} for each in caught)


@all_modules
def test_modules_are_short(module: Module) -> None:
    """A module that outgrows the limit holds more than one concept."""
    assert len(module.lines) < MAX_LINES


def sleeps(path: Path) -> list[int]:
    """The lines on which a file sleeps for a constant time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = renamed(tree)
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and full_name(node.func, names) in {"time.sleep", "asyncio.sleep"}
        and any(isinstance(arg, ast.Constant) and arg.value for arg in node.args)
    ]


def test_no_test_sleeps() -> None:
    """Tests wait for what happens, never for time to pass."""
    found = {str(path.relative_to(ROOT)): sleeps(path) for path in (ROOT / "tests").rglob("*.py")}
    assert not {path: lines for path, lines in found.items() if lines}
