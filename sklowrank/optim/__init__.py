"""Optimizers for torch with second-order information."""

__all__: list[str] = []
