"""Embeddings, vector fields and alignment of points on curved surfaces."""

from ._functional_map_aligner import FunctionalMapAligner
from ._heat_geodesic_embedding import HeatGeodesicEmbedding

__all__ = ["FunctionalMapAligner", "HeatGeodesicEmbedding"]
