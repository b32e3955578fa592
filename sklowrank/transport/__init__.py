"""Entropic optimal transport between tables, and domain adaptation by it."""

__all__ = []
