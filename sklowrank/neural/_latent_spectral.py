"""Regression from fields on a grid to fields on the same grid."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.workspace import open_workspace
from .._nets.designs import fit_design, own_randomness
from .._nets.images import flat_rows
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.schedules import one_cycle
from . import _latent_spectral_solver as solver


@network_parameters()
class LatentSpectralRegressor(CallbackSupportMixin, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Regression from fields on a regular grid to fields on the same grid.

    A convolutional network of several resolutions learns a map such as the one from permeability to pressure, or from
    a blurred image to a sharp one, from some hundred to some thousand pairs of fields: a surrogate for a simulation.
    It is more accurate than :class:`~sklearn.linear_model.RidgeCV` and :class:`~sklearn.kernel_ridge.KernelRidge`
    on flattened fields where the map is not linear. The U-shaped network does that: without its spectral blocks it
    is as accurate within some per cent, in less time.

    Parameters
    ----------
    grid_shape : (height, width), (length,) or None, default=None
        Points of the grid along each axis. Tables need it: their rows are fields in C order, channels last. None takes
        the grid of X with three or four axes; a table without a grid is a single point with a channel per column, for
        which :class:`NetworkRegressor` is the better choice.
    width : int, default=32
        Channels of the first level, a multiple of `n_heads`. Each level doubles them, but for the last one.
    n_levels : int or "auto", default="auto"
        Number of resolutions, at most 5, each with half the points of the one before along each axis. "auto" takes as
        many as leave the shorter axis 4 points.
    n_basis : int, default=12
        Number of sines, and of cosines, of the series of each channel.
    n_tokens : int, default=4
        Number of tokens that describe a patch.
    n_heads : int, default=8
        Number of heads of the attention between points and tokens.
    patch_size : int, default=4
        Points of a patch along each axis, at every level.
    loss : {"relative_l2", "mse"}, default="relative_l2"
        What is averaged over the fields of a batch: the norm of the error divided by that of the field, so that small
        fields count as much as large ones, or the squared norm of the error.
    normalize : bool, default=True
        Whether to centre X and y and divide them by their standard deviations, at each point and channel.
    learning_rate : float, default=1e-3
        Step size of the optimizer. The largest one: it rises from a 25th of it and falls to nearly nothing, in one
        cycle. 4e-3 suits trainings of some ten epochs.
    weight_decay : float, default=1e-4
        Strength of the weight decay of the optimizer. It is AdamW.
    batch_size : int, default=20
        Number of rows per training step; it changes the result. Sizes of batches differ by one at most.
    max_iter : int, default=200
        Maximum number of iterations. An iteration is an epoch; only a callback ends the training before.
    <computing parameters>

    Attributes
    ----------
    weights_ : dict of arrays
        Weights of the network, float32, by their names in torch. The coefficients of the series of each level are the
        array (2, n_channels, n_basis) whose name ends in "basis".
    n_parameters_ : int
        Number of parameters of the network.
    n_levels_ : int
        Number of resolutions.
    mean_, scale_ : arrays of shape (n_features,)
        What the numbers of a field of X are centred with and divided by, float64.
    y_mean_, y_scale_ : arrays of shape (n_targets,)
        What those of a field of y are centred with and divided by, float64.
    loss_curve_ : list of floats
        Mean loss of each epoch. "mse" is relative to the mean square of y, less its mean with `normalize`.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Numbers of a field of X, those of points times channels.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where it is a table and all are strings.

    See Also
    --------
    NetworkRegressor : A network for tables.
    sklearn.kernel_ridge.KernelRidge : Ridge regression with kernels, the baseline with few fields.
    sklowrank.tensor.FunctionalTuckerRegressor : A smooth function of coordinates, from values at scattered points.

    Notes
    -----
    The lifted field and the coordinates of its points go through levels of two 3 x 3 convolutions with batch
    normalisation, from one to the next by taking maxima of 2 x 2 points. On each level a spectral block follows, and
    the way back interpolates, joins the finer level and convolves. A line is a field that is convolved along one axis.

    In a spectral block the points of a patch are read by learned queries :math:`T`, which gives the tokens
    :math:`T + \\operatorname{softmax}(T K^\\top) V`, with keys K and values V of the points. Each value z of a token
    is replaced by

    .. math:: z + \\sum_{m=0}^{M-1} a_m \\sin(\\pi m z / M) + b_m \\cos(\\pi m z / M),

    with learned :math:`a_m` and :math:`b_m` for each channel and ``n_basis`` for M, and the points x of the patch
    become :math:`x + \\operatorname{softmax}(Q Z^\\top) Z` with the tokens Z and queries Q of the points.

    Where a size is odd the coarser level has the larger half, and of patches that go beyond the grid only the points
    on it count. Gradients with a norm above 1 are cut. A field of y that is zero is measured by the root mean square of
    y. An epoch takes O(n P (9 C + n_tokens) C) time for P points and C channels, memory is for a batch and
    for the data in float32. Training is in float32, answers are computed in float64.

    References
    ----------
    .. [1] H. Wu, T. Hu, H. Luo, J. Wang, M. Long, "Solving high-dimensional PDEs with latent spectral models", ICML
       2023.
    .. [2] O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation",
       MICCAI 2015.
    .. [3] Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart, A. Anandkumar, "Fourier neural
       operator for parametric partial differential equations", ICLR 2021.

    Examples
    --------
    >>> from scipy.ndimage import gaussian_filter
    >>> from sklearn.datasets import load_digits
    >>> from sklowrank.neural import LatentSpectralRegressor
    >>> sharp = load_digits().images[:300]
    >>> blurred = gaussian_filter(sharp, (0, 1, 1))
    >>> model = LatentSpectralRegressor(width=8, max_iter=5, learning_rate=1e-2, random_state=0)
    >>> model.fit(blurred[:200], sharp[:200]).predict(blurred[200:]).shape
    (100, 8, 8)
    >>> model.relative_l2(blurred[200:], sharp[200:]) < 0.25
    True
    """

    _parameter_constraints = {
        "grid_shape": ["array-like", None],
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_levels": [Interval(Integral, 1, 5, closed="both"), StrOptions({"auto"})],
        "n_basis": [Interval(Integral, 1, None, closed="left")],
        "n_tokens": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "patch_size": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions({"relative_l2", "mse"})],
        "normalize": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        **{
            name: NETWORK_CONSTRAINTS[name]
            for name in ("weight_decay", "batch_size", "max_iter", "device", "random_state", "verbose")
        },
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    n_parameters_: int
    n_levels_: int
    mean_: np.ndarray
    scale_: np.ndarray
    y_mean_: np.ndarray
    y_scale_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        grid_shape: Sequence[int] | None = None,
        *,
        width: int = 32,
        n_levels: int | Literal["auto"] = "auto",
        n_basis: int = 12,
        n_tokens: int = 4,
        n_heads: int = 8,
        patch_size: int = 4,
        loss: Literal["relative_l2", "mse"] = "relative_l2",
        normalize: bool = True,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 20,
        max_iter: int = 200,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.grid_shape = grid_shape
        self.width = width
        self.n_levels = n_levels
        self.n_basis = n_basis
        self.n_tokens = n_tokens
        self.n_heads = n_heads
        self.patch_size = patch_size
        self.loss = loss
        self.normalize = normalize
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, height, width), (n_samples, height, width, n_channels) or \
                (n_samples, n_features)
            The fields, finite. Rows of a table are fields in C order, channels last, on the grid `grid_shape`.
        y : array-like of shape (n_samples, height, width), (n_samples, height, width, n_channels), \
                (n_samples, n_targets) or (n_samples,)
            The fields that belong to them, with channels of their own.

        Returns
        -------
        self : LatentSpectralRegressor
        """
        (rows, x_axes), (targets, y_axes) = flat_rows(X), flat_rows(y)
        rows, targets = check_fit_data(self, rows, targets, y_numeric=True, multi_output=True)
        ws = open_workspace(rows, device=self.device, random_state=self.random_state)
        grid = solver.checked_grid(self.grid_shape, x_axes, y_axes)
        Y = ws.exact().load(np.asarray(on_host(targets), dtype=np.float64))
        problem = solver.field_problem(ws.load(rows), Y, grid, x_axes, y_axes, options(self, solver.Options))
        fitted = fit_design(
            self,
            problem.design,
            problem.batches,
            problem.loss,
            problem.training,
            ws=ws,
            randomness=own_randomness(ws),
            described=partial(solver.described, problem),
            schedule=partial(one_cycle, peak=self.learning_rate),
            X=X,
            y=y,
        )
        return keep(self, ws, fitted.model, **fitted.attributes)

    @in_plain_modes
    def predict(self, X):
        """Return the fields that belong to those of X.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, height, width), (n_samples, height, width, n_channels) or \
                (n_samples, n_features)
            The fields.

        Returns
        -------
        y : array of shape (n_samples, ...)
            With the axes that the y of `fit` had.
        """
        X, axes = flat_rows(X)
        X = check_new_data(self, X, like="mean_", method="predict")
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        solver.check_axes(model, axes)
        return ws.answer(solver.predictions(model, ws.load(X)))

    def score(self, X, y, sample_weight=None) -> float:
        """Return the coefficient of determination R^2, uniformly averaged over points and channels.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)
            The fields, as `predict` takes them.
        y : array-like of shape (n_samples, ...)
            The fields that belong to them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the fields.

        Returns
        -------
        score : float
        """
        truth, guess = self._compared(X, y)
        return float(r2_score(truth, guess, sample_weight=sample_weight))

    def relative_l2(self, X, y) -> float:
        """Return the relative error, the mean over fields of the norm of the error divided by that of the field.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)
            The fields, as `predict` takes them.
        y : array-like of shape (n_samples, ...)
            The fields that belong to them. One of zeros has the norm of the root mean square of y at all points.

        Returns
        -------
        error : float
        """
        truth, guess = (torch.from_numpy(part) for part in self._compared(X, y))
        return float((torch.linalg.vector_norm(guess - truth, dim=1) / solver.lengths(truth)).mean())

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode. It takes fields (n_samples, n_channels, height, width)
        in the units of X and returns such fields in the units of y.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.

        Returns
        -------
        network : torch.nn.Module
        """
        check_is_fitted(self)
        model = recall(self, solver.Model, open_workspace(np.empty((0, 0)), device="cpu").exact())
        return solver.FieldMap(model.design.restored(model.weights), model).eval().to(device)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.regressor_tags.poor_score = True  # of tables without a grid, in a few epochs
        tags.array_api_support = True
        return tags

    def _compared(self, X, y):
        """Return true and predicted fields as rows in float64."""
        guess = np.asarray(on_host(self.predict(X)), dtype=np.float64)
        truth = check_array(on_host(flat_rows(y)[0]), dtype=np.float64, ensure_2d=False, input_name="y")
        check_consistent_length(guess, truth)
        truth = truth.reshape(len(truth), -1)
        guess = guess.reshape(len(guess), -1)
        if guess.shape != truth.shape:
            raise ValueError(f"y has {truth.shape[1]} numbers per field, and predictions have {guess.shape[1]}.")
        return truth, guess
