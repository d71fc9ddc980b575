"""Runs the ``python`` blocks of a Markdown page, in order, as one program.

The blocks of a page share a namespace and an event loop, and may ``await`` at top level. Where a ``text``
block follows directly, it is what the ``python`` block prints, exactly. ``<!-- skip: next -->`` passes over
a block. A page that mentions ``database_url`` is given the URL of an empty PostgreSQL database by that name,
and is skipped where there is no server.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import itertools
import re
from contextlib import redirect_stdout
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from sybil import Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.servers import server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Document, Example

_RUNNER = "__runner__"
_DATABASE = "database_url"
_numbers = itertools.count(1)
_lex = FencedCodeBlockLexer("python")
_OUTPUT = re.compile(r"\s*^[ \t]*```text\n(?P<output>.*?)^[ \t]*```$", re.MULTILINE | re.DOTALL)


def open_document(namespace: dict[str, Any]) -> None:
    """Give a page its event loop."""
    namespace.update({"__name__": "__main__", _RUNNER: asyncio.Runner()})


def close_document(namespace: dict[str, Any]) -> None:
    """Cancel what the page left running, and close its loop."""
    namespace.pop(_RUNNER).close()


def parse_python_blocks(document: Document) -> Iterator[Region]:
    """Find the ``python`` blocks, each with the output it must have (None: any)."""
    for block in _lex(document):
        output = _OUTPUT.match(document.text, block.end)
        parsed = (block.lexemes["source"], output and dedent(output["output"]))
        yield Region(block.start, block.end, parsed, _evaluate)


def _new_database() -> str:
    name = f"page_{next(_numbers)}"
    postgresql = server("postgresql")
    postgresql.run(f"CREATE DATABASE {name}")
    return str(postgresql.url()).replace("/postgres?", f"/{name}?")


def _evaluate(example: Example) -> str | None:
    if _DATABASE in example.document.text and _DATABASE not in example.namespace:
        example.namespace[_DATABASE] = _new_database()
    source, expected = example.parsed
    padding = "\n" * (example.line + source.line_offset)  # so that tracebacks show the page's own lines
    code = compile(padding + source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with redirect_stdout(io.StringIO()) as stdout:
        result = eval(code, example.namespace)  # a coroutine if the block awaits
        if inspect.iscoroutine(result):
            example.namespace[_RUNNER].run(result)
    printed = stdout.getvalue()
    if expected is None or printed == expected:
        return None
    return f"The block printed:\n{printed}\nThe page says:\n{expected}"
