"""Embeddings, vector fields and alignment of points on curved surfaces."""

from ._functional_map_aligner import FunctionalMapAligner
from ._heat_geodesic_embedding import HeatGeodesicEmbedding
from ._manifold_vector_field import ManifoldVectorFieldRegressor

__all__ = ["FunctionalMapAligner", "HeatGeodesicEmbedding", "ManifoldVectorFieldRegressor"]
