"""Embeddings, vector fields and alignment of points on curved surfaces."""

from ._manifold_vector_field import ManifoldVectorFieldRegressor

__all__ = ["ManifoldVectorFieldRegressor"]
