"""Fitted networks with small embedding tables and dense layers of low rank, fitted to what these give, and tuned."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.frozen import FrozenEstimator
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import HasMethods, Interval, RealNotInt, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options
from .._core.iterate import drive
from .._core.rows import refuse_kind
from .._core.workspace import open_workspace
from .._nets.calls import outputs_of
from .._nets.holding import hold, stored_held
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.randomness import Randomness
from .._nets.training import Training
from .._nets.wrapping import CalibratedNetwork, checked_rows, relative_error
from ._feature_mimicking_compressor_solver import MimickingOptions, mimic_layers, mimicking_problem
from ._layer_pairs import n_parameters
from ._tuning import holding_weights, known_goal, tuning

_RANK = [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right"), None]


class FeatureMimickingCompressor(CalibratedNetwork, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Replace embedding tables and dense layers of a fitted network by smaller ones, and train them briefly.

    Each table becomes a narrow one, fitted to the vectors that rows look up, as often as they do, and each dense layer
    a pair of low rank, fitted to its outputs. A network for clicks, purchases or ratings, of which most parameters are
    in tables, becomes several times smaller. With labels it is trained for an epoch, to them and to its former outputs.

    Parameters
    ----------
    estimator : estimator, skorch net, torch.nn.Module, or one of these in a FrozenEstimator or last in a Pipeline
        The network. A torch module and what is in a :class:`~sklearn.frozen.FrozenEstimator` are compressed as they
        are; of anything else a clone is fitted first, as meta-estimators of scikit-learn do. It is never changed.
    embedding_rank : int, float or None, default=0.25
        Width that is kept of each embedding table: a number, or in (0, 1] a share of its width. None leaves tables as
        they are.
    linear_rank : int, float or None, default=0.25
        Rank of dense layers: a number, or in (0, 1] a share of the smaller side of the weight. None leaves dense layers
        as they are. Layers that would not become smaller are left, too.
    compression : float or None, default=None
        Largest number of parameters of the network, as a share of those that it had, in (0, 1]. It chooses the ranks in
        place of `embedding_rank` and `linear_rank`, by the explained share of the variance.
    inner_activation : {"relu", "tanh", "silu"} or None, default=None
        Activation between the two layers of a pair. It starts close to none, and needs training to be of use.
    first_layer : bool, default=False
        Whether the first linear layer is compressed.
    last_layer : bool, default=False
        Whether the last linear layer is compressed.
    fuse : bool, default=True
        Whether the map behind a narrow table becomes part of the linear layer that reads it, where nothing but
        concatenation and flattening is between them. Tables whose vectors are stacked need one width: with
        `compression`, or where one of them stays as it is, they keep their maps.
    max_iter : int or "auto", default="auto"
        Maximum number of iterations. An iteration is an epoch of training; 0 is none. "auto" is 0 without y, 1 with it,
        and 3 with y and an inner activation.
    learning_rate : float, default=1e-3
        Step size of the optimizer. It is Adam.
    batch_size : int, default=1024
        Number of rows per training step; it changes the result. Before the training it bounds memory alone.
    distillation : float, default=0.5
        Weight of the change of the outputs in the loss of the training, as a share of their variance, in [0, 1]. The
        rest is the weight of the loss of y. It is 1 without y, and where an estimator's loss is not known.
    n_calibration : int or None, default=None
        Number of rows that layers are fitted to, drawn without replacement. None takes all. The training takes all.
    validation_fraction : float, default=0.1
        Share of the training rows that is held out. The weights with the lowest loss on them are kept, those before the
        training among them.
    modules : str, list of str or None, default=None
        Names of layers in the torch module, or patterns such as ``"encoder.*"``, that are changed. None takes all.
    exclude : str, list of str or None, default=None
        Names or patterns of layers that are left as they are.
    module_getter : callable or None, default=None
        Returns the torch module of the fitted estimator. None looks at `module_` and ``network()``.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws rows and batches, and seeds
        torch where a clone of `estimator` is fitted.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration. An iteration is an epoch.

    Attributes
    ----------
    weights_ : dict of arrays
        Weights of the compressed network, by their names in torch.
    estimator_ : estimator
        The inner estimator with the compressed network, new at each access, ready to predict and to be trained on.
    layer_report_ : list of dicts
        `name`, `type`, `shape` of the weight, `rank` (None: left as it is), `n_parameters_before`, `n_parameters` and
        `explained` share of the variance of each layer, tables first, then in the order of a pass; it has
        ``to_frame()``.
    n_parameters_ : int
        Number of parameters of the compressed network.
    n_parameters_before_ : int
        Number of parameters of the network before.
    compression_ : float
        Their ratio.
    output_relative_error_ : float
        Mean squared change of the network's outputs on the rows that layers are fitted to, over their variance.
    loss_curve_ : list of float
        Loss on the rows that are held out, after each epoch.
    n_iter_ : int
        Number of epochs.
    classes_ : array of shape (n_classes,)
        Class labels of a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    LowRankCompressor : The same pairs for convolutions too, ranks by budget or tolerance, and no training.
    SecondOrderPruner : Networks with most weights zero.

    Notes
    -----
    Of a dense layer ``y = W x + b`` let mu and C be the mean and the covariance of y on the rows, and U the r leading
    eigenvectors of C. The pair has the weights ``U' W`` and U, and the bias ``b + (I - U U') (mu - b)``: it is
    ``mu + U U' (y - mu)``. Of a table E they are those of the vectors that are looked up, by their counts; the narrow
    table is ``E U``, and behind it is a linear layer of the weight U. With `fuse` a linear layer that reads vectors of
    tables has the columns ``W2 U`` in place of ``W2``. Where a product, a sum or another layer reads the vectors, too,
    or torch cannot trace the network, the linear layer stays behind the table. With `padding_idx` a table has no bias.

    An inner activation is shifted and scaled so that it changes little at the start: ReLU and SiLU by the 5 % quantile
    of their inputs, tanh by their mean and three standard deviations.

    A dense layer that is a pair of low rank already, from a training rule or a compressor, is taken as the one layer
    that it stands for, and counts the parameters that it has.

    The moments take a pass over the rows per dense layer, and eigen-decompositions of size ``min(n_in, n_out)``. Counts
    of a table do not depend on its order, and rows that are never looked up do not count.

    References
    ----------
    H. Yu, M. Fu, J. Ding, Y. Zhou, J. Wu. Unified Low-Rank Compression Framework for Click-Through Rate Prediction. KDD
    2024. arXiv:2405.18146.

    H. Yu, J. Wu. Compressing Transformers: Features Are Low-Rank, but Weights Are Not! AAAI 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklowrank.compress import FeatureMimickingCompressor
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> network = NetworkClassifier((128, 128, 128), max_iter=5, random_state=0).fit(X, y)
    >>> small = FeatureMimickingCompressor(FrozenEstimator(network), linear_rank=8, random_state=0).fit(X, y)
    >>> small.compression_ < 0.4, network.score(X, y) - small.score(X, y) < 0.02
    (True, True)
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"]), nn.Module],
        "embedding_rank": _RANK,
        "linear_rank": _RANK,
        "compression": [Interval(Real, 0, 1, closed="right"), None],
        "inner_activation": [StrOptions({"relu", "tanh", "silu"}), None],
        "first_layer": ["boolean"],
        "last_layer": ["boolean"],
        "fuse": ["boolean"],
        "max_iter": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "distillation": [Interval(Real, 0, 1, closed="both")],
        "n_calibration": [Interval(Integral, 2, None, closed="left"), None],
        "validation_fraction": NETWORK_CONSTRAINTS["validation_fraction"],
        "modules": [str, "array-like", None],
        "exclude": [str, "array-like", None],
        "module_getter": [callable, None],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
        "verbose": NETWORK_CONSTRAINTS["verbose"],
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    layer_report_: list[dict[str, Any]]
    n_parameters_: int
    n_parameters_before_: int
    compression_: float
    output_relative_error_: float
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        *,
        embedding_rank: int | float | None = 0.25,
        linear_rank: int | float | None = 0.25,
        compression: float | None = None,
        inner_activation: Literal["relu", "tanh", "silu"] | None = None,
        first_layer: bool = False,
        last_layer: bool = False,
        fuse: bool = True,
        max_iter: int | Literal["auto"] = "auto",
        learning_rate: float = 1e-3,
        batch_size: int = 1024,
        distillation: float = 0.5,
        n_calibration: int | None = None,
        validation_fraction: float = 0.1,
        modules: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        module_getter: Callable[[Any], nn.Module] | None = None,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.embedding_rank = embedding_rank
        self.linear_rank = linear_rank
        self.compression = compression
        self.inner_activation = inner_activation
        self.first_layer = first_layer
        self.last_layer = last_layer
        self.fuse = fuse
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.distillation = distillation
        self.n_calibration = n_calibration
        self.validation_fraction = validation_fraction
        self.modules = modules
        self.exclude = exclude
        self.module_getter = module_getter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None) -> Self:
        """Fit a clone of the estimator, unless it is frozen or a torch module, compress its network, and train it.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of n_samples rows
            The rows whose outputs are kept.
        y : array-like of n_samples targets, default=None
            What a clone is fitted to, and what the compressed network is trained on. A torch module has no loss, and
            takes none.

        Returns
        -------
        self : FeatureMimickingCompressor
        """
        if isinstance(self.estimator, nn.Module) and y is not None:
            raise ValueError("y was passed for a torch module, which has no loss. Pass a skorch net of it, or y=None.")
        X = checked_rows(self, X, reset=True, min_samples=2)
        ws = open_workspace(np.empty((0, 0)), device=self.device, random_state=self.random_state)
        randomness = Randomness(ws.generator, ws.device, seeds_global=True)
        held = hold(self.estimator, X, y, randomness, self.module_getter)
        n_epochs = _n_epochs(self.max_iter, self.inner_activation, y)
        opts = options(self, MimickingOptions)
        if n_epochs:
            refuse_kind(X, "cluster", f"max_iter={self.max_iter!r} trains the network, which partitions cannot. Use 0.")
        problem = mimicking_problem(held, X, opts, ws.generator, ws.device)
        wanted = y if n_epochs and self.distillation < 1 else None
        goal = known_goal(held, wanted, problem.calls, frozen=isinstance(self.estimator, FrozenEstimator))

        report = mimic_layers(problem, opts, ws.generator)
        training = options(self, Training, max_iter=n_epochs)
        steps = tuning(problem, goal, self.distillation, training, randomness=randomness, device=ws.device)

        def attributes(snapshot):
            with holding_weights(held.module, snapshot.weights):
                model, described = _described(held, problem, report, ws.device)
            return fitted_attributes(ws, model, **described)

        run = drive(self, steps, attributes=attributes, X=X, y=y, max_iter=max(1, n_epochs), tol=0.0)
        model, described = _described(held, problem, report, ws.device)
        return keep(self, ws, model, **described, loss_curve_=run.loss_curve, n_iter_=run.n_iter)


def _n_epochs(max_iter, inner_activation, y):
    """Return the number of epochs of the training."""
    if max_iter != "auto":
        return max_iter
    return 0 if y is None else 1 if inner_activation is None else 3


def _described(held, problem, report, device):
    """Return the model and the public fitted attributes."""
    stored, n_after = stored_held(held), n_parameters(problem.module)
    outputs = outputs_of(problem.module, problem.fitted_calls, problem.size, device)
    return stored, {
        "weights_": stored.weights,
        "layer_report_": report,
        "n_parameters_": n_after,
        "n_parameters_before_": problem.n_before,
        "compression_": n_after / problem.n_before,
        "output_relative_error_": relative_error(outputs, problem.fitted_outputs),
    }
