"""How soon `phyxius --help` is there, beside the import of click alone, which it cannot do without.

The runs alternate, so that whatever else the machine does meets both. Trust the ratio, which is kept as `extra_info` in
`--benchmark-json`, and not the absolutes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 20
MOST = 2.0
"""How many times the import of click the help may take."""


def took(directory: Path, *args: str) -> float:
    """How long a Python takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *args], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def test_help(benchmark: Any, tmp_path: Path) -> None:
    """It imports nothing of the library, and nothing that draws."""
    took(tmp_path, "-m", "phyxius_cli", "--help")  # what is compiled is compiled
    bare: list[float] = []
    help_: list[float] = []

    def click_alone() -> None:
        bare.append(took(tmp_path, "-c", "import click"))

    def ours() -> None:
        help_.append(took(tmp_path, "-m", "phyxius_cli", "--help"))

    benchmark.pedantic(ours, setup=click_alone, rounds=ROUNDS, iterations=1)
    ratio = median(help_) / median(bare)
    benchmark.extra_info.update(import_click_seconds=median(bare), help_seconds=median(help_), ratio=ratio)
    assert ratio <= MOST, f"{median(help_):.3f} s for the help, {median(bare):.3f} s for click alone"
