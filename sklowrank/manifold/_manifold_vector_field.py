"""Vector fields on a cloud of points by a Gaussian process whose kernel follows the cloud."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_array, check_consistent_length

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.validation import check_count, check_fit_data, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._connection import GraphOptions, codes_at, place_rows, scaled
from ._field_evidence import ProcessOptions
from ._field_fit import fit_field
from ._field_model import FieldModel, cloud_of, described, field_model, known_points, predicted, shaped
from ._field_posterior import draws_at


class ManifoldVectorFieldRegressor(RegressorMixin, MultiOutputMixin, BaseEstimator):
    """Predict vectors or numbers on a cloud of points by a Gaussian process whose kernel follows the cloud.

    The rows of X are points near a surface, and y has a vector at some of them: a flow, a velocity, a gradient. The
    regressor learns tangent spaces of the surface and how vectors are carried from one point to the next, and predicts
    the field at all points with its standard deviation. It pays where many points are known, few have a label, and the
    surface comes close to itself, such as a roll. Where the surface does not, and for tables in general,
    :class:`~sklearn.gaussian_process.GaussianProcessRegressor` is about as accurate and faster.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number of nearest neighbours. Two points are joined where one is a neighbour of the other; at most
        ``n_samples - 1`` are used.
    signal : {"auto", "tangent", "scalar"}, default="auto"
        What y holds: "tangent" vectors with as many columns as X, or "scalar" for numbers, where each column of y is a
        field of its own; columns have the kernel in common but for their units. "auto" is "tangent" if y has two axes
        and as many columns as X; pass "scalar" where these are not vectors. Vectors have the axes of X: where columns
        of X are scaled each by itself, vectors are no longer tangent, unless those of y are scaled likewise.
    tangent_neighbors : float or "auto", default="auto"
        Number of neighbours from which a tangent space is estimated, as a multiple of `n_neighbors`. Larger values
        average the noise of the points, smaller ones follow the curvature. "auto" is 1.5, but where tangent spaces of
        that width leave more than 7 % of the local variance unexplained, it is the value among 1.5, 3 and 6 of the
        largest marginal likelihood, without those at which `intrinsic_dim="auto"` finds a larger dimension. That takes
        up to three fits in place of one. For numbers it is without effect.
    intrinsic_dim : int or "auto", default="auto"
        Dimension of the tangent spaces, at most n_features and the neighbours that there are. "auto" is the smallest
        one at which the share of the local variance, its mean over points less one standard deviation, reaches
        `explained_variance`.
    explained_variance : float, default=0.8
        Share of the local variance, above 0 and at most 1, for `intrinsic_dim="auto"`.
    n_eigenpairs : int, default=80
        Number of modes of the Laplacian, at most n_samples times the dimension; fewer where the last ones are a part of
        a group of equal eigenvalues. More modes follow finer structure, in time and memory proportional to them.
    weights : {"binary", "gaussian"}, default="binary"
        Weights of the edges: 1, or Gaussian weights of distances that are corrected for the density of points.
    kernel : {"matern", "rbf"}, default="matern"
        How variances of the modes decrease with eigenvalues: by a power, or exponentially for very smooth fields.
    ambient : {"matern"} or None, default="matern"
        A second kernel, of smoothness 3/2, on the coordinates; the marginal likelihood decides how much it explains.
        None is the kernel of the modes alone, with predictions in the tangent spaces.
    nu : float, default=1.5
        Smoothness of `kernel="matern"`, above 0.
    length_scale : float, default=5.0
        Length scale of the kernel of the modes, above 0, in units of the graph; values below 1e-4 or above 1e4 count as
        these. With an optimizer, where it starts.
    noise_variance : float, default=1e-3
        Variance of the noise relative to the mean square of y, at least 0; values below 1e-8 count as 1e-8. With an
        optimizer, where it starts.
    optimizer : {"l-bfgs-b"} or None, default="l-bfgs-b"
        How the marginal likelihood is maximised. None keeps the starting values, with half of the variance in each
        kernel.
    n_restarts_optimizer : int, default=1
        Number of further starts of the optimizer, at random values.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It is used for the further starts.

    Attributes
    ----------
    gauges_ : array of shape (n_samples, n_features, intrinsic_dim_)
        Orthonormal bases of the tangent spaces; ones of shape (n_samples, 1, 1) for numbers.
    eigenvalues_ : array of shape (n_modes,)
        Lowest eigenvalues of the connection Laplacian, ascending; of the graph Laplacian for numbers.
    eigenvectors_ : array of shape (n_samples, n_features, n_modes)
        Modes as vectors in the space of X, with mean square 1 over points and tangent directions; of shape
        (n_samples, 1, n_modes) for numbers.
    intrinsic_dim_ : int
        Dimension of the tangent spaces; 1 for numbers.
    tangent_neighbors_ : float
        The multiple of `n_neighbors` from which tangent spaces were estimated.
    kernel_params_ : dict
        `length_scale`, and `amplitude` and `noise_variance` in units of y squared; with the second kernel
        `ambient_amplitude`, likewise, and `ambient_length_scale` in units of X. Variances are arrays where y has
        several columns of numbers.
    alpha_ : array of shape (n_modes,) or (n_modes, n_outputs)
        Posterior mean of the coefficients of the modes.
    X_fit_ : array of shape (n_samples, n_features)
        The points.
    log_marginal_likelihood_value_ : float
        Logarithm of the marginal likelihood of the labels; a lower bound of it beyond 2000 numbers in y.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen in `fit`, if X had names that are strings.

    See Also
    --------
    sklearn.gaussian_process.GaussianProcessRegressor : The kernel of the coordinates alone.
    sklearn.semi_supervised.LabelSpreading : Classes on a graph of points.

    Notes
    -----
    With tangent bases :math:`T_i` and transports :math:`R_{ij}`, the orthogonal matrices nearest to
    :math:`T_i^\\top T_j`, the connection Laplacian has the blocks :math:`L_{ii} = \\deg_i I` and
    :math:`L_{ij} = -w_{ij} R_{ij}`. Its lowest eigenpairs :math:`\\lambda_m, u_m` give the kernel

    .. math:: k(i, j) = a \\sum_m s_m \\, T_i u_m(i) \\, u_m(j)^\\top T_j^\\top, \\qquad
        s_m \\propto (\\lambda_m + 2 \\nu / \\kappa^2)^{-\\nu} \\ \\text{or} \\ e^{-\\lambda_m \\kappa^2 / 2},

    to which `ambient` adds a Matérn kernel of the coordinates times the identity. All is computed in float64. Results
    do not depend on the units of X and y, on the order of the rows or on the choice of the bases. Points that are equal
    are one location. A new point takes the code of a known one that it equals, else the Nyström extension from its
    neighbours, with modes up to half its degree.

    Time for n points, m labels and K modes in d tangent dimensions: the graph, the lowest eigenpairs of a sparse matrix
    of order n d, and O(m D K² + m r²) for the process, where r = m up to 2000 numbers in y and r = 512 inducing points
    beyond that. Memory O(n D K + m r). No matrix has n × n entries, unless `n_eigenpairs` is above a quarter of n d.
    With points near a surface of dimension 4 or more, and on CUDA, eigenpairs come from products with the matrix, else
    from its factors.

    References
    ----------
    .. [1] R. L. Peach, M. Vinao-Carl, N. Grossman, M. David, E. Mallas, D. Sharp, P. A. Malhotra, P. Vandergheynst,
       A. Gosztolai, "Implicit Gaussian process representation of vector fields over arbitrary latent manifolds",
       ICLR, 2024.
    .. [2] A. Singer, H.-T. Wu, "Vector diffusion maps and the connection Laplacian", Communications on Pure and
       Applied Mathematics 65(8), 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.manifold import ManifoldVectorFieldRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 3))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)  # points on a sphere, which turns about its axis
    >>> flow = np.cross([0, 0, 1], X)
    >>> y = np.where(np.arange(300)[:, None] < 60, flow, np.nan)  # 60 vectors are known
    >>> model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    >>> model.intrinsic_dim_
    2
    >>> float(np.abs(model.predict(X) - flow).max()) < 0.01
    True
    """

    _parameter_constraints = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "signal": [StrOptions({"auto", "tangent", "scalar"})],
        "tangent_neighbors": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "intrinsic_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "explained_variance": [Interval(Real, 0, 1, closed="right")],
        "n_eigenpairs": [Interval(Integral, 1, None, closed="left")],
        "weights": [StrOptions({"binary", "gaussian"})],
        "kernel": [StrOptions({"matern", "rbf"})],
        "ambient": [StrOptions({"matern"}), None],
        "nu": [Interval(Real, 0, None, closed="neither")],
        "length_scale": [Interval(Real, 0, None, closed="neither")],
        "noise_variance": [Interval(Real, 0, None, closed="left")],
        "optimizer": [StrOptions({"l-bfgs-b"}), None],
        "n_restarts_optimizer": [Interval(Integral, 0, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    gauges_: np.ndarray
    eigenvalues_: np.ndarray
    eigenvectors_: np.ndarray
    intrinsic_dim_: int
    tangent_neighbors_: float
    kernel_params_: dict[str, float | np.ndarray]
    alpha_: np.ndarray
    X_fit_: np.ndarray
    log_marginal_likelihood_value_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_neighbors: int = 10,
        *,
        signal: Literal["auto", "tangent", "scalar"] = "auto",
        tangent_neighbors: float | Literal["auto"] = "auto",
        intrinsic_dim: int | Literal["auto"] = "auto",
        explained_variance: float = 0.8,
        n_eigenpairs: int = 80,
        weights: Literal["binary", "gaussian"] = "binary",
        kernel: Literal["matern", "rbf"] = "matern",
        ambient: Literal["matern"] | None = "matern",
        nu: float = 1.5,
        length_scale: float = 5.0,
        noise_variance: float = 1e-3,
        optimizer: Literal["l-bfgs-b"] | None = "l-bfgs-b",
        n_restarts_optimizer: int = 1,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_neighbors = n_neighbors
        self.signal = signal
        self.tangent_neighbors = tangent_neighbors
        self.intrinsic_dim = intrinsic_dim
        self.explained_variance = explained_variance
        self.n_eigenpairs = n_eigenpairs
        self.weights = weights
        self.kernel = kernel
        self.ambient = ambient
        self.nu = nu
        self.length_scale = length_scale
        self.noise_variance = noise_variance
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Learn the cloud and the field.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The points, two at least, those without a label among them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The vectors or numbers. A row that is NaN throughout is a point without a label.

        Returns
        -------
        self : ManifoldVectorFieldRegressor

        Raises
        ------
        ValueError
            If a row of y is NaN in part, or none has a label.
        """
        X, y = _checked(self, X, y)
        tangent = _is_tangent(self.signal, X, y)
        _check_dimension(self.intrinsic_dim, X)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, values = ws.exact().load(X), ws.exact().load(y)
        placement = place_rows(rows)
        points = scaled(rows[placement.first], placement)
        if len(points) == 1:
            warn("All rows of X are equal: predictions are the mean of y.", UserWarning)
        settings = options(self, GraphOptions, tangent=tangent), options(self, ProcessOptions)
        starts = torch.rand(self.n_restarts_optimizer, 4, generator=ws.generator, dtype=torch.float64, device="cpu")
        fit = fit_field(points, (values, placement.place), *settings, starts.numpy())
        model = field_model(rows, placement, fit, flat=y.ndim == 1)
        return keep(self, ws, model, **described(model, fit, X, ws))

    def predict(self, X, return_std=False):
        """Return the field at each point.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The points, of `fit` or others.
        return_std : bool, default=False
            Whether to return standard deviations, too.

        Returns
        -------
        y_mean : array of shape (n_samples,) or (n_samples, n_outputs)
            The field.
        y_std : array of the same shape
            Its standard deviation, without the noise of the labels; only if `return_std`.
        """
        ws, model, queries = self._located(X, "predict")
        answers = [shaped(part, model) for part in predicted(queries, model, return_std)]
        return tuple(map(ws.answer, answers)) if return_std else ws.answer(answers[0])

    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination, R², at the points with a label.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The points.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The vectors or numbers. Rows that are NaN throughout do not count.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the points.

        Returns
        -------
        score : float
            The mean of R² over the columns of y; a column that is constant counts as 0, unless it is met exactly.
        """
        known = _labelled(y)
        if known is not None:
            X, y = _safe_indexing(X, known), _safe_indexing(y, known)
            sample_weight = None if sample_weight is None else _safe_indexing(sample_weight, known)
        return super().score(X, y, sample_weight)

    def sample_y(self, X, n_samples=1, random_state=0):
        """Draw fields from the posterior.

        Parameters
        ----------
        X : array-like or tensor of shape (n_points, n_features)
            The points. With a kernel of the coordinates the memory is that of n_points² numbers.
        n_samples : int, default=1
            Number of draws, above 0.
        random_state : int, RandomState instance or None, default=0
            Seed or generator of random numbers.

        Returns
        -------
        y_samples : array of shape (n_points, n_samples) or (n_points, n_outputs, n_samples)
            The fields, without noise.
        """
        n_samples = check_count(n_samples, "n_samples", "sample_y")
        ws, model, queries = self._located(X, "sample_y", random_state)
        codes = codes_at(queries, cloud_of(model))
        draws = draws_at(codes, known_points(model), queries, model.posterior, n_samples, ws.exact().randn)
        return ws.answer(shaped(draws, model))

    def _located(self, X, method, random_state=None):
        """Return the workspace of new points, the model and the points in its units."""
        X = check_new_data(self, X, like="gauges_", method=method)
        ws = open_workspace(X, device=self.device, random_state=random_state)
        model = recall(self, FieldModel, ws.exact())
        return ws, model, scaled(ws.exact().load(X), model)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


# The data


def _checked(estimator, X, y):
    """Return X and values y in float64, where rows of NaN are unlabelled."""
    if y is None:
        check_fit_data(estimator, X, None)  # which raises
    X = check_fit_data(estimator, X, ensure_min_samples=2)
    y = on_host(y)
    y = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
    check_consistent_length(X, y)
    missing = np.isnan(y).reshape(len(y), -1)
    in_part = np.flatnonzero(missing.any(1) & ~missing.all(1))
    if len(in_part):
        raise ValueError(
            f"y has rows that are NaN in part: {in_part[:10].tolist()}. A row without a label is NaN in all columns; "
            "complete the others or leave them out."
        )
    if missing.all():
        raise ValueError(f"y has no label: all of its {len(y)} rows are NaN. Pass at least one row of numbers.")
    return X, y


def _labelled(y):
    """Return the positions of rows of y that are not NaN throughout; None where all are or none is."""
    values = check_array(on_host(y), ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
    given = ~np.isnan(values).reshape(len(values), -1).all(1)
    return np.flatnonzero(given) if given.any() and not given.all() else None


def _is_tangent(signal, X, y):
    """Return whether y are tangent vectors, and check that they can be."""
    wide = y.ndim == 2 and y.shape[1] == X.shape[1]
    if signal == "tangent" and not wide:
        raise ValueError(
            f"signal='tangent' needs vectors of n_features={X.shape[1]} numbers, but y has the shape {y.shape}. Pass "
            "signal='scalar' to treat each column of y as a field of numbers."
        )
    return signal != "scalar" and wide


def _check_dimension(intrinsic_dim, X):
    if intrinsic_dim != "auto" and intrinsic_dim > X.shape[1]:
        raise ValueError(
            f"intrinsic_dim={intrinsic_dim} is too large for X with n_features={X.shape[1]}. Pass at most "
            f"{X.shape[1]}, or 'auto'."
        )
