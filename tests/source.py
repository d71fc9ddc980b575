"""The modules of ``src/phyxius``, parsed: what the tests of the architecture look at."""

from __future__ import annotations

import ast
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "phyxius"
CORE = ("fp", "clock", "journal", "handler", "migration")
# A part may import the parts of a lower rank. What serves the core has one rank, the commands stand on top.
RANKS = {part: rank for rank, part in enumerate(CORE)} | {
    **dict.fromkeys(("testing", "adapters", "blocking"), len(CORE)),
    **dict.fromkeys(("cli", "__main__"), len(CORE) + 1),
}


@attrs.frozen
class Import:
    """One imported module, or one name from it."""

    module: str
    name: str | None
    line: int


@attrs.frozen(slots=False)
class Module:
    """A source file under its dotted name."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def part(self) -> str:
        """The floor, or what stands above the floors; empty for the root."""
        return self.name.partition(".")[2].partition(".")[0]

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse("\n".join(self.lines), str(self.path))

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, wherever it stands, with relative ones made absolute."""
        return [imported for node in ast.walk(self.tree) for imported in self.imports_of(node)]

    def imports_of(self, node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)

    @cached_property
    def exports(self) -> list[str] | None:
        """The literal ``__all__``, or None."""
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return list(ast.literal_eval(node.value))
        return None


def _dotted(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# An application that the demonstration copies, and runs as one's own: it imports the library as everybody does.
APPLICATION = SRC / "cli" / "_demo" / "shop.py"
_PATHS = sorted(path for path in SRC.rglob("*.py") if path != APPLICATION)
MODULES = {module.name: module for module in (Module(_dotted(path), path) for path in _PATHS)}
FACES = [MODULES[name] for name in (f"phyxius.{floor}" for floor in CORE) if name in MODULES]


def renamed(tree: ast.AST) -> dict[str, str]:
    """The full names of what a module imports under a shorter or another one."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """How a name or an attribute reads when no import has renamed it."""
    first, dot, rest = ast.unparse(node).partition(".")
    return names.get(first, first) + dot + rest


def is_private(name: str) -> bool:
    """Whether any component of a dotted name begins with one underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
