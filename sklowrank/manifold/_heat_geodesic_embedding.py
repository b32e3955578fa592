"""Heat geodesic embedding: points in the plane whose distances follow the geodesics of the data."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.metaestimators import available_if

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, fitted_matrix, keep, options, recall
from .._core.iterate import drive
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._heat_geodesic_solver import (
    GraphOptions,
    HeatModel,
    HeatOptions,
    ScalingOptions,
    described,
    embedding_steps,
    heat_problem,
    model_of,
    new_places,
    on_device,
    warn_of_problem,
)

_MANY = 5000  # rows above which "auto" takes landmarks
_AUTO_LANDMARKS = 2000
_MOST_EXACT = 3000  # rows for which a dense eigendecomposition is reasonable


class HeatGeodesicEmbedding(CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Embed rows so that distances follow geodesics of the data, which the heat kernel of a graph of neighbours gives.

    For plots and clusterings of rows on a curved surface of low dimension: cells along a development, positions of a
    process, poses. Like Isomap, it measures along the data rather than through empty space. Where noise connects parts
    of the surface that are far apart, shortest paths take these connections, while heat averages over all paths and is
    less affected. Without noise :class:`~sklearn.manifold.Isomap` is as accurate, and faster.

    Parameters
    ----------
    n_components : int, default=2
        Number of components.
    n_neighbors : int, default=10
        Number of nearest neighbours. At most ``n_samples - 1`` are used, with a warning. More neighbours average over
        more noise and add edges between parts that are far apart along the surface.
    graph : {"alpha_decay", "knn", "precomputed"}, default="alpha_decay"
        Weights of the edges: a kernel that falls from 1 to ``exp(-1)`` at the last neighbour, 1 for each edge, or
        X is an affinity matrix, non-negative and symmetric, whose diagonal is ignored. New rows cannot be placed then.
        Largest affinities of about 1 suit the default of `t`.
    decay : float, default=40.0
        Exponent of the kernel of `graph="alpha_decay"`, above 0. Large values give all but the last neighbours the same
        weight.
    t : float or "auto", default=10.0
        Diffusion time, above 0, in units of the inverse weight of an edge. Small times resolve detail, large ones
        average over noise. Affinities of `graph="precomputed"` twice as large have the effect of twice the time. With
        `laplacian="normalized"` about ten times as much has the same effect. "auto" takes the knee of the entropy of
        the heat kernel over 20 times between 0.05 and 50, which costs as many kernels.
    laplacian : {"combinatorial", "normalized"}, default="combinatorial"
        Laplacian of the graph: ``D - W`` or ``I - D^-1/2 W D^-1/2``, with degrees D.
    heat_solver : {"euler", "chebyshev", "exact"}, default="euler"
        How the heat kernel is computed. "euler" takes `n_steps` backward Euler steps: all entries are positive and
        accurate relative to their size, so that far rows have distances of their own. "chebyshev" is a polynomial of
        order `n_steps`, "exact" an eigendecomposition of at most 3000 rows: both return round-off for far pairs, which
        are clipped to one constant distance. They serve for comparison.
    n_steps : int, default=30
        Number of Euler steps, or the order of the polynomial, which has to be about 200 for ``t=10``.
    volume_weight : float, default=1.0
        Weight of the volume correction, at least 0. With 0 distances are those of Varadhan's formula, which are larger
        where rows are sparse; with 1 the formula gives a row the distance 0 to itself.
    times : list of floats or None, default=None
        Several diffusion times, over which distances are averaged; `t` is ignored then.
    mds : {"classic", "smacof"}, default="smacof"
        How places are found from distances: classical scaling, or SMACOF, which starts from it and minimises the
        squared errors of the distances themselves.
    mds_weights : {"heat"} or None, default=None
        Weights of the squared errors for `mds="smacof"`. With "heat" they are the heat kernel: near pairs count, far
        ones hardly do, as in neighbour embeddings. This takes more iterations.
    max_iter : int, default=300
        Maximum number of iterations. For `mds="smacof"` alone.
    tol : float, default=1e-5
        Tolerance of the stopping criterion. SMACOF ends where an iteration lowers the stress by less than this, in
        relation to the stress.
    n_landmarks : int, "auto" or None, default="auto"
        Number of landmarks. They are rows that are far from one another, more than `n_components`; all other rows are
        placed by their distances to them. None takes all rows, "auto" 2000 above 5000 rows.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws the start of an eigenvalue
        solver, which changes the result by rounding.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    embedding_ : array of shape (n_samples, n_components)
        The embedded rows.
    dist_matrix_ : array of shape (n_landmarks_, n_landmarks_)
        Heat geodesic distances between the landmarks: between all rows, where there are no landmarks.
    landmark_indices_ : array of shape (n_landmarks_,)
        Indices of the landmarks, ascending.
    affinity_matrix_ : sparse array of shape (n_samples, n_samples)
        Weights of the edges, symmetric, with an empty diagonal; components are joined. CSR.
    t_ : float
        Diffusion time; the weighted mean of several ones.
    stress_ : float
        Root of the squared errors of the embedded distances between landmarks over the sum of their squares.
    n_clipped_ : int
        Number of squared distances between landmarks that were negative, and are 0. Many mean that `volume_weight` is
        too large.
    n_connected_components_ : int
        Number of connected components of the graph before they were joined.
    n_iter_ : int
        Number of iterations of SMACOF, 1 for `mds="classic"`.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklearn.manifold.Isomap : Shortest paths; for data with little noise.
    sklowrank.inspection.EmbeddingDisplay : A plot of the embedding with the errors of its distances.

    Notes
    -----
    With the heat kernel :math:`H = (I + \\tfrac{t}{S} L)^{-S}` of the Laplacian L of the graph,

    .. math:: d_{ij}^2 = \\max\\bigl(0, -4 t \\log H_{ij} + 4 t \\sigma \\log\\tfrac{H_{ii} + H_{jj}}{2}\\bigr)

    with :math:`\\sigma` = `volume_weight`; S is `n_steps`. Everything is computed in float64, as entries of H
    reach 1e-60. Connected components are joined by the edges of their minimum spanning tree, with a warning.

    With all n rows as landmarks the time is O(n³), the memory O(n²). With m landmarks columns of H are summed as a
    series of products with the sparse graph, in O(n m k c) time with k neighbours and c terms, a few hundred for
    ``t=10``, and O(n m) memory; scaling takes O(m²) per iteration. The neighbours of n rows are found by
    :class:`~sklearn.neighbors.NearestNeighbors` on a CPU. Neighbours as far away as the last one count as well, up to
    100 of them, so that the order of rows does not matter; more lead to a warning.

    A row that is no landmark starts at the weighted mean of its ten nearest landmarks and minimises its squared errors
    of distances to all landmarks by Gauss-Newton steps. A new row first gets the mean heat of its neighbours in the
    training set.

    References
    ----------
    .. [1] G. Huguet, A. Tong, E. De Brouwer, Y. Zhang, G. Wolf, I. Adelstein, S. Krishnaswamy, "A heat diffusion
       perspective on geodesic preserving dimensionality reduction", NeurIPS, 2023.
    .. [2] I. Borg, P. Groenen, "Modern Multidimensional Scaling", Springer, 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_swiss_roll
    >>> from sklowrank.manifold import HeatGeodesicEmbedding
    >>> X, along = make_swiss_roll(600, random_state=0)
    >>> model = HeatGeodesicEmbedding(random_state=0).fit(X)
    >>> model.embedding_.shape
    (600, 2)
    >>> bool(abs(np.corrcoef(model.embedding_[:, 0], along)[0, 1]) > 0.9)
    True
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
        n = X.shape[0]
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        graph = options(self, GraphOptions, n_neighbors=_degree(self.n_neighbors, n, self.graph))
        heat = options(self, HeatOptions)
        scaling = options(self, ScalingOptions, n_landmarks=_count_landmarks(self.n_landmarks, n))
        _check_sizes(heat, scaling, n)
        problem = heat_problem(X, _diffusion_times(self.times, self.t), graph, heat, scaling, ws)

        def attributes(places):
            model = model_of(places, problem)
            return fitted_attributes(ws, model, **described(model, problem, ws.dtype))

        steps = embedding_steps(problem, ws.exact().randn(scaling.n_landmarks))
        run = drive(self, steps, attributes=attributes, X=X, y=y, advice="Raise max_iter or tol.")
        model = model_of(run.state, problem)
        warn_of_problem(problem)
        return keep(self, ws, model, **described(model, problem, ws.dtype), n_iter_=run.n_iter)

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
        return ws.answer(new_places(on_device(X, ws), model))

    @property
    def _n_features_out(self):
        return self.embedding_.shape[1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        tags.input_tags.pairwise = self.graph == "precomputed"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


# Inside of the class it would be undone by what makes transform follow set_output
HeatGeodesicEmbedding.transform = available_if(lambda self: self.graph != "precomputed")(
    HeatGeodesicEmbedding.transform
)


def _degree(n_neighbors, n, graph):
    """Return the number of neighbours, at most n - 1, with a warning where that is less than was asked for."""
    if n_neighbors < n or graph == "precomputed":
        return n_neighbors
    warn(f"n_neighbors={n_neighbors} is not below n_samples={n}: {n - 1} neighbours are used.", UserWarning)
    return n - 1


def _count_landmarks(n_landmarks, n):
    if n_landmarks == "auto":
        n_landmarks = _AUTO_LANDMARKS if n > _MANY else None
    return n if n_landmarks is None else min(n_landmarks, n)


def _check_sizes(heat, scaling, n):
    """Refuse what does not fit the number of rows."""
    if scaling.n_components > scaling.n_landmarks:
        many = f"n_samples={n}" if scaling.n_landmarks == n else f"n_landmarks={scaling.n_landmarks}"
        raise ValueError(
            f"n_components={scaling.n_components} is too large for {many}. Pass at most {scaling.n_landmarks}."
        )
    if scaling.n_components >= scaling.n_landmarks < n:
        raise ValueError(
            f"n_landmarks={scaling.n_landmarks} is too small for n_components={scaling.n_components}: places of rows "
            f"need distances to more landmarks than there are components. Pass n_landmarks of at least "
            f"{scaling.n_components + 1}, or None."
        )
    if heat.heat_solver == "exact" and n > _MOST_EXACT:
        raise ValueError(
            f"heat_solver='exact' takes at most {_MOST_EXACT} rows, but n_samples={n}. Use heat_solver='euler'."
        )


def _diffusion_times(times, t):
    """Return the diffusion times as a list, None where the data choose one."""
    if times is None:
        return None if t == "auto" else [float(t)]
    try:
        values = np.asarray(times)
    except ValueError:  # lists of different lengths
        values = np.asarray(None)
    if (
        values.ndim != 1
        or not len(values)
        or values.dtype.kind not in "fiu"
        or not np.all(np.isfinite(values) & (values > 0))
    ):
        raise ValueError(f"times={times!r} should be None or a list of one or more finite numbers above 0.")
    return [float(value) for value in values]
