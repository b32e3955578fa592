"""Densities of rows near a thin set: a latent network that is trained on perturbed rows, and sampled without noise."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context, get_namespace
from .._core.fitted import keep, options, recall
from .._core.modes import in_plain_modes
from .._core.standardize import standardized
from .._core.validation import check_count, check_fit_data, check_new_data
from .._core.workspace import check_place, open_workspace
from .._nets.designs import fit_design, own_randomness
from .._nets.layers import ACTIVATIONS
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.training import Training
from . import _perturbed_latent_density_solver as solver
from ._perturbed_latent_density_network import Autoencoder


@network_parameters(module_params="nothing")
class PerturbedLatentDensity(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """Density of rows on or near a thin set, such as a curve or a surface, by a network trained on perturbed rows.

    A network is trained by maximum likelihood, as variational and importance-weighted autoencoders are, on rows to
    which new noise is added in each step. Without that noise the likelihood is unbounded where columns nearly
    determine one another, and the distribution gets worse while the likelihood rises. `score_samples` is the log
    density of the smoothed distribution, the one with the noise: for outlier scores and for the comparison of models.
    `sample` draws from the distribution without the noise.

    Try first a :class:`~sklearn.neighbors.KernelDensity`, and a :class:`~sklearn.mixture.GaussianMixture` with the
    square of the perturbation as `reg_covar`, of standardised rows. Near curves both, and near flat sets the mixture,
    have the larger likelihood, and they are far quicker; samples of densities of unperturbed rows are nearer in
    Wasserstein distance. Near a curved surface in a space of more dimensions this estimator can have the larger
    likelihood; and it gives coordinates on the set.

    Parameters
    ----------
    n_components : int or None, default=None
        Number of components. They are the latent coordinates and the columns of `transform`. Take the dimension of the
        set or a little more: each further one costs some accuracy, and fewer cannot represent the set. None is the
        number of features, at most 10.
    perturbation : float or "auto", default="auto"
        Standard deviation of the noise that is added to the standardised rows in training, at least 0. "auto" trains
        with 0, 0.05, 0.1, 0.2 and 0.3 on four fifths of the rows, compares samples with the other rows, takes the
        smallest value that is as good as the best, and trains again on all rows. It takes about five times as long.
    n_importance : int, default=10
        Number of draws per row in training. 1 is the variational autoencoder.
    noise : float or "learn", default="learn"
        Standard deviation of the decoder's noise, in units of the standardised columns, above 0. "learn" finds it.
    min_noise : float, default=1e-3
        Lower limit of a learned noise. It matters where there is no perturbation.
    hidden_layer_sizes : sequence of ints, default=(64, 64)
        Widths of the hidden layers of the default network. These are the encoder's; the decoder has them in reverse.
    activation : {"relu", "gelu", "tanh", "identity"}, default="gelu"
        Activation of the hidden layers.
    learning_rate : float, default=5e-3
        Step size of the optimizer. Adam; it falls along a cosine to a fiftieth.
    batch_size : int, default=128
        Number of rows per training step; it changes the result. The last rows of an epoch, which fill no batch, are
        left out of it; they are others each time.
    max_iter : int, default=300
        Maximum number of iterations. An iteration is an epoch, all are run. Tables of few batches need more: 2,000
        batches in all are a good start.
    n_eval_samples : int, default=500
        Number of draws per row in `score_samples`.
    <computing parameters>

    Attributes
    ----------
    weights_ : dict of arrays
        Weights of the network, float32, by their names in torch.
    perturbation_ : float
        The perturbation of the training.
    validation_distances_ : dict of floats
        Mean distance of samples from held-out rows by perturbation; with ``perturbation="auto"`` alone.
    noise_ : float
        Standard deviation of the decoder's noise, in units of the standardised columns.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns of X are centred with and divided by, float64. Constant columns have the scale 1.
    loss_curve_ : list of floats
        Mean loss of each epoch: the negative log density of standardised perturbed rows, or a bound above it, in nats.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklearn.neighbors.KernelDensity : The density of rows with noise of one width added to each.
    sklearn.mixture.GaussianMixture : Densities with full covariances.
    sklowrank.mixture.LowRankGaussianMixture : Gaussians along flat subspaces.

    Notes
    -----
    The model of a standardised row is :math:`x = f(z) + \\sigma e` with standard normal z and e, and a network f. Its
    log density is bounded from below by K draws from the encoder's Gaussian :math:`q(z \\mid x)`,

    .. math::

        \\log p(x) \\ge E \\log \\frac{1}{K} \\sum_{k=1}^{K} \\frac{\\phi_\\sigma(x - f(z_k)) \\, \\phi(z_k)}
        {q(z_k \\mid x)},

    and training maximises the bound for :math:`x + s e'` with the perturbation s and new normal :math:`e'` each time.
    The noise :math:`\\sigma` then approaches s where the rows have none of their own, and the distribution of f(z)
    that of the rows without noise. With s = 0 and no noise in the rows :math:`\\sigma` falls towards `min_noise`.
    "auto" does not choose by likelihood, which is always largest for s = 0, but by the sliced Wasserstein distance
    between samples and held-out rows. Discrete columns are treated as numbers; the perturbation makes them continuous.

    `score_samples` is this bound with `n_eval_samples` draws, the same for each row. Far from the training rows it may
    be much lower than the log density.

    A step takes O(b K p) time for b rows and p weights. Training is in float32, answers are computed in float64.

    References
    ----------
    .. [1] M. Chae, D. Kim, Y. Kim, L. Lin, "A likelihood approach to nonparametric estimation of a singular
       distribution using deep generative models", Journal of Machine Learning Research 24(77), 2023.
    .. [2] Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    .. [3] G. Loaiza-Ganem, B. L. Ross, J. C. Cresswell, A. L. Caterini, "Diagnosing and fixing manifold overfitting in
       deep generative models", Transactions on Machine Learning Research, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.neural import PerturbedLatentDensity
    >>> t = np.random.default_rng(0).uniform(-1, 1, 300)
    >>> X = np.c_[t, t**2]
    >>> model = PerturbedLatentDensity(1, 0.2, learning_rate=1e-2, max_iter=60, random_state=0).fit(X)
    >>> on_the_curve, off_it = model.score_samples([[0.0, 0.0], [0.0, 1.0]])
    >>> bool(on_the_curve > off_it + 2)
    True
    >>> model.sample(5).shape
    (5, 2)
    """

    _parameter_constraints = {
        **{name: NETWORK_CONSTRAINTS[name] for name in ("hidden_layer_sizes", "batch_size", "max_iter")},
        **{name: NETWORK_CONSTRAINTS[name] for name in ("device", "random_state", "verbose")},
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "perturbation": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "n_importance": [Interval(Integral, 1, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="neither"), StrOptions({"learn"})],
        "min_noise": [Interval(Real, 0, None, closed="neither")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_eval_samples": [Interval(Integral, 1, None, closed="left")],
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    perturbation_: float
    validation_distances_: dict[float, float]
    noise_: float
    mean_: np.ndarray
    scale_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | None = None,
        perturbation: float | Literal["auto"] = "auto",
        *,
        n_importance: int = 10,
        noise: float | Literal["learn"] = "learn",
        min_noise: float = 1e-3,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        activation: Literal["relu", "gelu", "tanh", "identity"] = "gelu",
        learning_rate: float = 5e-3,
        batch_size: int = 128,
        max_iter: int = 300,
        n_eval_samples: int = 500,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.perturbation = perturbation
        self.n_importance = n_importance
        self.noise = noise
        self.min_noise = min_noise
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_eval_samples = n_eval_samples
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, at least two.
        y : ignored
            Present for pipelines, and for callbacks that score.

        Returns
        -------
        self : PerturbedLatentDensity
        """
        X = check_fit_data(self, X, ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        problem = solver.density_problem(
            ws.load(X), options(self, solver.Options), options(self, Training), ws.generator
        )
        problem, tried = solver.with_perturbation(problem)
        randomness = own_randomness(ws)
        fitted = fit_design(
            self,
            problem.design,
            solver.perturbed_batches(problem, randomness.generator),
            solver.negative_bound,
            problem.training,
            ws=ws,
            randomness=randomness,
            described=partial(solver.described, problem),
            schedule=solver.SCHEDULE,
            X=X,
            y=y,
        )
        return keep(self, ws, fitted.model, **fitted.attributes, **tried)

    def sample(self, n_samples=1, *, noise=False, random_state=None):
        """Draw rows from the distribution without noise.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        noise : bool, default=False
            Whether to add the decoder's noise, `noise_`: the rows are then from the density of `score_samples`.
        random_state : int, RandomState instance or None, default=None
            Seed or generator of random numbers. None is that of the estimator: with an int there, two calls give the
            same rows.

        Returns
        -------
        X : array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        n_samples = check_count(n_samples, "n_samples", "sample")
        random_state = self.random_state if random_state is None else random_state
        ws = open_workspace(self.mean_, device=self.device, random_state=random_state).exact()
        model = recall(self, solver.Model, ws)
        X = solver.decoded(solver.restored(model, ws.device), ws.randn(n_samples, model.shape.n_components))
        X = X + model.noise * ws.randn(*X.shape) if noise else X
        return ws.store((X * model.scale + model.mean).to(solver.precision_of(model)))

    def score_samples(self, X):
        """Return the logarithm of the smoothed density at each row, in nats.

        It is the density of the decoder's output with its noise: after training with a perturbation that of the
        perturbed rows, not of the rows themselves, which may have none. It is estimated from below by
        `n_eval_samples` draws, closely so near the training rows. The value of a row depends on no other row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : array of shape (n_samples,)
            In the units of X.
        """
        ws, found = self._log_densities(X, "score_samples")
        return ws.answer(found)

    def score(self, X, y=None):
        """Return the mean of `score_samples` over the rows, in nats.

        Compare only models of the same `perturbation`: with a smaller one the score of rows on the set is larger,
        whether or not the distribution is nearer to theirs.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
        """
        return float(self._log_densities(X, "score")[1].mean())

    def transform(self, X):
        """Return the latent coordinates of each row, the means of the encoder's Gaussians.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
        """
        ws, _, net, X = self._recalled(X, "transform")
        return ws.answer(solver.encoded(net, X))

    def inverse_transform(self, X):
        """Return the decoder's rows of latent coordinates.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Latent coordinates.

        Returns
        -------
        X_original : array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        check_place(X, "X")
        xp = get_namespace(X)[0]
        Z = check_array(X, dtype=[xp.float64, xp.float32], input_name="X")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns, and inverse_transform takes the n_components={self._n_features_out} "
                "latent coordinates that transform gives."
            )
        ws = open_workspace(Z, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        found = solver.decoded(solver.restored(model, ws.device), ws.load(Z).double())
        return ws.answer(found * model.scale + model.mean)

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode, and returns the decoder's rows of the encoder's
        means. Its `encoder` takes rows as `transform` does and gives means and log-variances of the latent
        coordinates, (n, 2 n_components); its `decoder` is `inverse_transform`.

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
        density = solver.restored(model, dtype=torch.float32)
        return Autoencoder(density, model.mean, model.scale).to(device).eval()

    def _recalled(self, X, method):
        """Return the workspace of new rows, the model, its network, and the rows standardised."""
        X = check_new_data(self, X, like="mean_", method=method)
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        rows = standardized(ws.load(X), model.mean, model.scale, torch.float64)
        return ws, model, solver.restored(model, ws.device), rows

    def _log_densities(self, X, method):
        """Return the workspace of new rows and their log densities in float64, in the units of X."""
        self._validate_params()  # n_eval_samples may have been set after `fit`
        ws, model, net, rows = self._recalled(X, method)
        draws = solver.score_draws(model, self.n_eval_samples, ws.device)
        return ws, solver.log_densities(net, rows, draws) - model.scale.log().sum()

    @property
    def _n_features_out(self):
        return self.weights_["decoder.0.weight"].shape[1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
