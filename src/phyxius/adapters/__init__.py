"""Stores and evidence on top of other libraries; each imports its library only when it is used."""
