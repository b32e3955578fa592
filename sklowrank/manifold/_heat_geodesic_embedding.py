"""Heat geodesic embedding: points in the plane whose distances follow the geodesics of the data."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_matrix, keep, options, recall
from .._core.iterate import Step, drive
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._heat_kernel import (
    HeatOptions,
    RowGraph,
    choose_landmarks,
    given_graph,
    heat_distances,
    knee_time,
    laplacian_of,
    new_distances,
    new_row_weights,
    row_graph,
    scaled,
)
from ._metric_scaling import classical_scaling, place, place_classical, principal_axes, smacof_steps, stress

_MANY = 5000  # rows above which "auto" takes landmarks
_AUTO_LANDMARKS = 2000
_MOST_EXACT = 3000


class HeatModel(NamedTuple):
    """What transform needs."""

    rows: Any  # of the fit: a tensor, CSR, or None where the affinity was given
    affinity_matrix: Any
    heat: HeatOptions
    times: list[float]
    diagonals: torch.Tensor
    mds: str
    mds_weights: str | None
    embedding: torch.Tensor
    dist_matrix: torch.Tensor
    landmark_indices: torch.Tensor


class HeatGeodesicEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Embed rows so that distances follow the geodesics of the data, by the spread of heat on a graph of neighbours.

    Parameters
    ----------
    n_components : int, default=2
        Number of components.

    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "graph": [StrOptions({"alpha_decay", "knn", "precomputed"})],
        "decay": [Interval(Real, 0, None, closed="neither")],
        "t": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "laplacian": [StrOptions({"combinatorial", "normalized"})],
        "heat_solver": [StrOptions({"euler", "chebyshev", "exact"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "volume_weight": [Interval(Real, 0, None, closed="left")],
        "times": ["array-like", None],
        "mds": [StrOptions({"classic", "smacof"})],
        "mds_weights": [StrOptions({"heat"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_landmarks": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    affinity_matrix_ = fitted_matrix("affinity_matrix")

    # Set by fit
    embedding_: np.ndarray
    dist_matrix_: np.ndarray
    landmark_indices_: np.ndarray
    t_: float
    stress_: float
    n_clipped_: int
    n_connected_components_: int
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int = 2,
        *,
        n_neighbors: int = 10,
        graph: Literal["alpha_decay", "knn", "precomputed"] = "alpha_decay",
        decay: float = 40.0,
        t: float | Literal["auto"] = 10.0,
        laplacian: Literal["combinatorial", "normalized"] = "combinatorial",
        heat_solver: Literal["euler", "chebyshev", "exact"] = "euler",
        n_steps: int = 30,
        volume_weight: float = 1.0,
        times: Sequence[float] | None = None,
        mds: Literal["classic", "smacof"] = "smacof",
        mds_weights: Literal["heat"] | None = None,
        max_iter: int = 300,
        tol: float = 1e-5,
        n_landmarks: int | Literal["auto"] | None = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.graph = graph
        self.decay = decay
        self.t = t
        self.laplacian = laplacian
        self.heat_solver = heat_solver
        self.n_steps = n_steps
        self.volume_weight = volume_weight
        self.times = times
        self.mds = mds
        self.mds_weights = mds_weights
        self.max_iter = max_iter
        self.tol = tol
        self.n_landmarks = n_landmarks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Embed the rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, two at least; with `graph="precomputed"` their affinity matrix.
        y : None
            Ignored.

        Returns
        -------
        self : HeatGeodesicEmbedding
        """
        X = check_fit_data(self, X, accept_sparse="csr", ensure_min_samples=2)
        chosen, n_landmarks, times = _checked(self, X.shape[0])
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, points, graph = _graph(X, chosen, ws)
        landmarks = choose_landmarks(points, graph, n_landmarks)
        laplacian = laplacian_of(graph.affinity, chosen.laplacian)
        times = times or [knee_time(laplacian, landmarks, chosen, ws.device)]
        heat = heat_distances(laplacian, landmarks, times, chosen, ws.device)
        if points is not None and _all_equal(points):
            heat.distances.zero_()
        between = heat.distances[:, landmarks.to(ws.device)]
        model = HeatModel(rows, graph.affinity, chosen, times, heat.diagonals, self.mds, self.mds_weights,
                          heat.kernel, between, landmarks)
        start = classical_scaling(between, self.n_components, ws.exact().randn(len(between)))
        steps = [Step(start, 0.0, stress(start, between))]
        if self.mds == "smacof":
            steps = smacof_steps(between, start, heat.kernel if self.mds_weights == "heat" else None)
        described = partial(_described, ws=ws, model=model, heat=heat, graph=graph)
        run = drive(self, steps, attributes=described, X=X, advice="Raise max_iter or tol.")
        return keep(self, ws, model, **_described(run.state, ws, model, heat, graph), n_iter_=run.n_iter)

    def fit_transform(self, X, y=None):
        """Embed the rows and return them.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, two at least; with `graph="precomputed"` their affinity matrix.
        y : None
            Ignored.

        Returns
        -------
        Y : array of shape (n_samples, n_components)
        """
        return self.fit(X).embedding_

    @available_if(lambda self: self.graph != "precomputed")
    def transform(self, X):
        """Place new rows among those of the fit.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Y : array of shape (n_samples, n_components)
        """
        X = check_new_data(self, X, like="embedding_", method="transform", accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        model = recall(self, HeatModel, ws.exact())
        return ws.answer(_placed(_loaded(X, ws), model, ws))

    @property
    def _n_features_out(self):
        return self.embedding_.shape[1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.graph == "precomputed"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _checked(estimator, n):
    raise NotImplementedError
