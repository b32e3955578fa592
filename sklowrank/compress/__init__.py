"""Fitted networks made smaller."""

__all__: list[str] = []
