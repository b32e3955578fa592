"""Clusters of rows by the subspaces of a fit: what a fitted clustering knows, and the predictions from it."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import ClusterMixin
from sklearn.utils import get_tags

from .._core.blocks import join_blocks, rows_per_block
from .._core.fitted import fitted_matrix, recall
from .._core.validation import check_new_data
from .._math.graphs import largest_cluster
from .._math.mixtures import LowRankGaussians, log_joint
from .._math.subspaces import first_largest, nearest_flats
from ._row_products import in_same_format, load_rows, norms, prepared, times, workspace_of_rows


class ComponentParams(NamedTuple):
    """A mixture of low-rank Gaussians beside the bases of its components."""

    weights: torch.Tensor  # (K,)
    variances: torch.Tensor  # (K, d)
    noise: torch.Tensor  # (K,)


class Subspaces(NamedTuple):
    """What predictions need: the subspaces of the clusters, and the coded rows where predictions code new ones."""

    bases: list[torch.Tensor]  # K of (D, n_dims[k])
    labels: torch.Tensor  # (n,)
    centre: torch.Tensor | None
    axes: torch.Tensor | None
    components: ComponentParams | None  # after refining by the mixture
    atoms: torch.Tensor | sp.csr_array | None  # (m, p), the rows of the problem
    atom_places: torch.Tensor | None  # (m,), which training rows they are
    rank: int | None  # of low-rank codes


class SubspacePredictions(ClusterMixin):
    """Predictions from the subspaces of a fit.

    A class that has them fits a :class:`ClusterModel` and defines ``_code_rows(atoms, rows, model, ws)``, the codes of
    new rows over the training rows.
    """

    affinity_matrix_ = fitted_matrix("affinity_matrix")

    # Set by fit
    labels_: np.ndarray
    bases_: list[np.ndarray]
    cluster_centers_: np.ndarray
    n_dims_: np.ndarray
    n_components_graph_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def predict(self, X):
        """Return the cluster of each row, by the subspaces that the training rows span.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows; a sparse matrix where `fit` takes one.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Cluster of each row. Rows of zeros belong to the largest cluster.
        """
        sparse = "csr" if get_tags(self).input_tags.sparse and not self.center else False
        X = check_new_data(self, X, method="predict", like="cluster_centers_", accept_sparse=sparse)
        ws = workspace_of_rows(X, device=self.device, random_state=self.random_state)
        model = recall(self, Subspaces, ws.exact())
        rows = prepared(load_rows(X, ws), model.centre, model.axes, self.normalize)
        labels = nearest_subspaces(rows, model)
        if self.predict_method == "code":
            rows, atoms = in_same_format(rows, kept_atoms(model))
            labels = labels_by_code(self._code_rows(atoms, rows, model, ws), model, labels)
        return ws.store(in_largest_cluster(norms(rows) == 0, labels, model.labels))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


def nearest_subspaces(rows, model: Subspaces) -> torch.Tensor:
    """Return the nearest subspace of each prepared row, or its most probable component where there is a mixture."""
    width = max(U.shape[1] for U in model.bases)
    bases = torch.stack([torch.nn.functional.pad(U.double(), (0, width - U.shape[1])) for U in model.bases])
    bases = bases if model.axes is None else model.axes.mT @ bases
    K, D = len(bases), bases.shape[1]
    flat, origin = bases.permute(1, 0, 2).reshape(D, -1), bases.new_zeros(K, D)
    log_densities = _log_densities(model.components, origin, bases)

    def nearest(at):
        part = rows[at]
        if log_densities is not None:
            return first_largest(log_densities(part))
        if sp.issparse(part):  # subspaces pass through the origin: the longest projection leaves the least
            return first_largest(times(part, flat).view(-1, K, width).square().sum(2))
        return nearest_flats(part, origin, bases)[0]

    per_row = 8 * (3 * D + 3 * K * (width + 2))
    block = rows_per_block("auto", rows.shape[0], per_row)
    return join_blocks(nearest, rows.shape[0], block, bytes_per_row=per_row)


def _log_densities(components, means, bases):
    """Return the joint log densities of rows and components as a function of rows; None without a mixture."""
    if components is None:
        return None
    model = LowRankGaussians(components.weights, means, bases, components.variances, components.noise)
    return lambda rows: log_joint(rows, model)


def kept_atoms(model: Subspaces):
    """Return the coded training rows; refuse a model that was fitted without them."""
    if model.atoms is None:
        raise ValueError("predict_method='code' needs the training rows. Set it before fit.")
    return model.atoms


def labels_by_code(codes, model: Subspaces, labels) -> torch.Tensor:
    """Return the cluster with the largest absolute code mass of each row; `labels` where the code is empty."""
    K = len(model.bases)
    member = torch.nn.functional.one_hot(model.labels[model.atom_places].long(), K).double()
    mass = times(abs(codes), member).to(labels.device)
    return torch.where((mass > 0).any(1), mass.argmax(1), labels)


def in_largest_cluster(zero, labels, known) -> torch.Tensor:
    """Return labels with rows of zeros, which lie in every subspace, in the largest cluster of the labels `known`."""
    return torch.where(zero.to(labels.device), largest_cluster(known.cpu().numpy()), labels)
