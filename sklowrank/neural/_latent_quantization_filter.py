"""A filter that maps rows back onto the distribution of its training rows, by rounded codes of an autoencoder."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context, get_namespace
from .._core.fitted import keep, options, recall
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.workspace import check_place, open_workspace
from .._nets.designs import fit_design, own_randomness
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.schedules import cosine
from .._nets.training import Training
from . import _latent_quantization_solver as solver


@network_parameters(module_params="none")
class LatentQuantizationFilter(CallbackSupportMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Map rows back onto the distribution of the training rows by rounded codes of an autoencoder.

    A denoising autoencoder with a bounded encoder and a normal latent distribution, whose codes are rounded to a grid.
    It cleans spoilt rows (noise, dead sensors, adversarial perturbations) in front of a fitted model, without that
    model and without labels, and scores anomalies. Where the training rows can be kept and follow few factors, the mean
    of the nearest of them is the better filter. It weakens attacks that are made on the model alone; an attack through
    :meth:`network` defeats it, and nothing is certified. Clean rows lose detail, which costs a model some accuracy.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Number of components. "auto" is 12, or the number of columns where it is lower.
    step : float, default=0.5
        Width to which codes are rounded, in latent units, of which a component has a standard deviation of about 1. 0
        does not round.
    latent_noise : float, default=0.5
        Standard deviation of the noise that is added to codes in training, in latent units.
    input_noise : float, default=0.1
        Standard deviation of the noise that is added to rows in training, in units of each column's range. Most of what
        the filter does comes from it: about the size of the perturbations to be removed. With 0 it removes noise worse
        than PCA does.
    prior_weight : float, default=5.0
        Weight of the distance between the distribution of codes and the standard normal one.
    lipschitz : float or None, default=4.0
        Largest factor by which the encoder, before codes are rounded, may stretch the distance of two rows that are
        divided by `scale_`. None sets no bound.
    hidden_layer_sizes : sequence of ints, default=(128, 128)
        Widths of the hidden layers of the default network. The decoder has them in reverse order.
    output_range : "data", (low, high) or None, default="data"
        Range to which answers are clipped: of each column in training, a pair of numbers for all columns, such as
        ``(0, np.inf)``, or none.
    learning_rate : float, default=4e-3
        Step size of the optimizer. Of Adam; it falls to 0 along a cosine.
    batch_size : int, default=128
        Number of rows per training step; it changes the result. At most all rows.
    max_iter : int, default=150
        Maximum number of iterations. An iteration is an epoch; only a callback ends the training before.
    <computing parameters>

    Attributes
    ----------
    n_components_ : int
        Number of components.
    weights_ : dict of arrays
        Weights of encoder and decoder, float32, by their names in :meth:`network`.
    mean_ : array of shape (n_features,)
        Means of the columns.
    scale_ : array of shape (n_features,)
        Ranges of the columns, 1 for a constant one, times one number: ``(X - mean_) / scale_`` of the training rows has
        the total variance `n_components_`.
    data_min_, data_max_ : arrays of shape (n_features,)
        Range of each column.
    loss_curve_ : list of floats
        Mean loss of each epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklearn.decomposition.PCA : ``inverse_transform(transform(X))`` is the plain filter.
    sklearn.neighbors.KNeighborsRegressor : ``fit(X, X).predict(X)`` is the mean of the nearest training rows.
    sklowrank.mixture.LowRankGaussianMixture : A density whose `denoise` needs the variance of the noise.

    Notes
    -----
    With the encoder e, the decoder g, the noise :math:`\\epsilon` of rows and n of codes, and
    :math:`q = s \\lfloor z / s \\rceil` of the step s, training minimises the mean over rows of

    .. math:: \\sum_j \\Bigl(\\frac{g(q)_j - x_j}{r_j}\\Bigr)^2 , \\qquad z = e(x + \\epsilon) + n ,

    with the ranges :math:`r_j` of the columns, plus `prior_weight` times the squared maximum mean discrepancy between
    :math:`e(x + \\epsilon)` and standard normal rows, with inverse multiquadratic kernels of five widths. The gradient
    of the rounding is taken as 1. Weights of the encoder are divided by their spectral norms, and its output is
    multiplied by a number that is learned and at most `lipschitz`. A row whose perturbation leaves its code alone has
    the answer of the clean row.

    Constant columns are neither read nor written: they come back as they were learned. An epoch takes O(n p) time for n
    rows and p weights, and memory for a copy of the rows. Training is in float32, answers are computed in float64.

    References
    ----------
    .. [1] V. Kyatham, M. Mishra, T. K. Yadav, D. Mishra, Prathosh A. P., "Variational inference with latent space
       quantization for adversarial resilience", ICPR 2020.
    .. [2] I. Tolstikhin, O. Bousquet, S. Gelly, B. Schölkopf, "Wasserstein auto-encoders", ICLR 2018.
    .. [3] A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of security: circumventing
       defenses to adversarial examples", ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklowrank.neural import LatentQuantizationFilter
    >>> X = load_wine().data
    >>> spoilt = X + 0.3 * np.ptp(X, axis=0) * np.random.default_rng(0).normal(size=X.shape)
    >>> cleaner = LatentQuantizationFilter(4, input_noise=0.3, max_iter=60, random_state=0).fit(X)
    >>> error = lambda Z: np.mean(((Z - X) / np.ptp(X, axis=0)) ** 2)
    >>> bool(error(cleaner.transform(spoilt)) < 0.4 * error(spoilt))
    True
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        **{
            name: [Interval(Real, 0, None, closed="left")]
            for name in ("step", "latent_noise", "input_noise", "prior_weight")
        },
        "lipschitz": [Interval(Real, 0, None, closed="neither"), None],
        "hidden_layer_sizes": NETWORK_CONSTRAINTS["hidden_layer_sizes"],
        "output_range": [StrOptions({"data"}), "array-like", None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("batch_size", "max_iter", "device", "random_state", "verbose")},
    }

    # Set by fit
    n_components_: int
    weights_: dict[str, np.ndarray]
    mean_: np.ndarray
    scale_: np.ndarray
    data_min_: np.ndarray
    data_max_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | Literal["auto"] = "auto",
        *,
        step: float = 0.5,
        latent_noise: float = 0.5,
        input_noise: float = 0.1,
        prior_weight: float = 5.0,
        lipschitz: float | None = 4.0,
        hidden_layer_sizes: ArrayLike = (128, 128),
        output_range: Literal["data"] | tuple[float, float] | None = "data",
        learning_rate: float = 4e-3,
        batch_size: int = 128,
        max_iter: int = 150,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.step = step
        self.latent_noise = latent_noise
        self.input_noise = input_noise
        self.prior_weight = prior_weight
        self.lipschitz = lipschitz
        self.hidden_layer_sizes = hidden_layer_sizes
        self.output_range = output_range
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Train the filter.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Clean rows, at least two.
        y : None
            Ignored.

        Returns
        -------
        self : LatentQuantizationFilter
        """
        X = check_fit_data(self, X, ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, chosen, randomness = ws.load(X), options(self, solver.Options), own_randomness(ws)
        problem = solver.filter_problem(rows, chosen)
        fitted = fit_design(
            self,
            problem.design,
            solver.noisy_batches(problem, randomness.generator),
            solver.filter_loss(problem),
            options(self, Training),
            ws=ws,
            randomness=randomness,
            described=lambda weights: solver.described(problem, weights),
            schedule=cosine,
            X=X,
            y=y,
        )
        solver.warn_of_one_code(rows, fitted.model, chosen)
        return keep(self, ws, fitted.model, **fitted.attributes)

    @in_plain_modes
    def transform(self, X):
        """Return purified rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X_new : array of shape (n_samples, n_features)
            Equal to ``decode(encode(X))``.
        """
        ws, model, X = self._recalled(X, "transform")
        return ws.answer(solver.purified(X, model, ws.precision))

    @in_plain_modes
    def encode(self, X):
        """Return the codes of rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            Multiples of `step`; the latent values themselves where it is 0.
        """
        ws, model, X = self._recalled(X, "encode")
        return ws.answer(solver.codes_of(X, model, ws.precision))

    @in_plain_modes
    def decode(self, Z):
        """Return the rows of codes.

        Parameters
        ----------
        Z : array-like or tensor of shape (n_samples, n_components)
            Codes, as :meth:`encode` returns them, or other points of the latent space.

        Returns
        -------
        X : array of shape (n_samples, n_features)
            Within `output_range`.

        Raises
        ------
        ValueError
            If Z has another number of columns.
        """
        check_is_fitted(self)
        check_place(Z, "Z")
        xp = get_namespace(Z)[0]
        Z = check_array(Z, dtype=[xp.float64, xp.float32], input_name="Z")
        if Z.shape[1] != self.n_components_:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, but codes have n_components_={self.n_components_}. Pass codes as "
                "`encode` returns them."
            )
        ws = open_workspace(Z, device=self.device)
        return ws.answer(solver.rows_of_codes(ws.load(Z), recall(self, solver.Model, ws.exact())))

    @in_plain_modes
    def score_samples(self, X):
        """Return how little the filter changes each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : array of shape (n_samples,)
            Minus the mean over columns of the squared change in units of the column's range; constant columns count 0.
            Low values are anomalies.
        """
        ws, model, X = self._recalled(X, "score_samples")
        return ws.answer(solver.scores_of(X, solver.purified(X, model, ws.precision), model))

    def score(self, X, y=None) -> float:
        """Return the mean of :meth:`score_samples`: how little the filter changes rows.

        For clean rows it is highest where the filter removes least. To choose `input_noise` or `step`, compare what
        is left of noise that was added to clean rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : None
            Ignored.

        Returns
        -------
        score : float
        """
        return float(np.mean(on_host(self.score_samples(X)), dtype=np.float64))

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the filter as a torch module, from rows in their own units to purified rows.

        It is a new one at each call, in float32 and eval mode, to be put in front of a classifier. Its gradient passes
        the rounding as if there were none, so that an attack can be made through it.

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
        return solver.restored(model, device, torch.float32)

    def _recalled(self, X, method):
        """Return the workspace of new rows, the model, and the rows validated, as a tensor."""
        X = check_new_data(self, X, like="mean_", method=method)
        ws = open_workspace(X, device=self.device)
        return ws, recall(self, solver.Model, ws.exact()), ws.load(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
