"""Stores and evidence on top of other libraries; each imports its library only when it is used."""

from phyxius.adapters._opened import attestations_of, opened_stores

__all__ = ["attestations_of", "opened_stores"]
