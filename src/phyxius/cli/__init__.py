"""What the `phyxius` command does; what it takes is in `phyxius_cli`, which imports this when it is needed."""

from phyxius.cli._command import complete, run

__all__ = ["complete", "run"]
