"""Embeddings, vector fields and alignment of points on curved surfaces."""

from ._heat_geodesic_embedding import HeatGeodesicEmbedding

__all__ = ["HeatGeodesicEmbedding"]
