"""Runs the Python blocks of the README and of the docs as tests."""

from __future__ import annotations

from sybil import Sybil
from sybil.parsers.markdown import SkipParser

from tests.markdown import close_document, open_document, parse_python_blocks

pytest_collect_file = Sybil(
    parsers=[parse_python_blocks, SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    setup=open_document,
    teardown=close_document,
).pytest()
