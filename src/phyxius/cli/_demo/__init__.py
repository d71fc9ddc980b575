"""The demonstration: a whole migration of a shop that goes on selling."""

from phyxius.cli._demo._story import demo

__all__ = ["demo"]
