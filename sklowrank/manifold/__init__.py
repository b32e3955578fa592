"""Embeddings, vector fields and alignment of points on curved surfaces."""

__all__ = []
