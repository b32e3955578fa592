"""Fitted networks with layers of low rank, fitted to the outputs of the layers on some rows."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import HasMethods, Interval, RealNotInt, StrOptions, _fit_context
from .._core.fitted import keep, options
from .._core.workspace import open_workspace
from .._nets.holding import hold, stored_held
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.randomness import Randomness
from .._nets.wrapping import CalibratedNetwork, checked_rows, some_rows, where_to_compute
from ._low_rank_compressor_solver import CompressionOptions, compress_network


class LowRankCompressor(CalibratedNetwork, MetaEstimatorMixin, BaseEstimator):
    """Replace layers of a fitted network by pairs of layers of low rank, without training.

    The outputs of layers on a few hundred rows lie close to a subspace even where weights have full rank: each layer
    becomes the product of two smaller ones that is best for these outputs. Linear layers, convolutions and embeddings
    of skorch nets, of estimators of this package and of torch modules are taken. Labels are not needed.

    Parameters
    ----------
    estimator : estimator, skorch net, torch.nn.Module, or one of these in a FrozenEstimator or last in a Pipeline
        The network. A torch module and what is in a :class:`~sklearn.frozen.FrozenEstimator` are compressed as they
        are; of anything else a clone is fitted first, as meta-estimators of scikit-learn do. It is never changed.
    rank : int, float or None, default=None
        Rank of all layers: a number, or in (0, 1] a share of the smaller side of each weight. Layers that would not
        become smaller are left as they are. None chooses ranks by `compression` or `tolerance`.
    compression : float, default=0.5
        Largest number of parameters of the network, as a share of those that it had, in (0, 1]. For ``rank=None`` and
        ``tolerance=None`` alone.
    tolerance : float or None, default=None
        Largest loss on the rows of the fit, for which the smallest network is searched: of the estimator's score where
        there is y, else of the relative squared error of the outputs. Not together with `rank`.
    method : {"output_pca", "input_whitened", "weight_svd"}, default="output_pca"
        What a layer of low rank is best for: "output_pca" outputs, with a bias that changes; "input_whitened" outputs
        with the bias as it is; "weight_svd" the weight, whatever the rows are.
    allocation : {"greedy", "energy", "uniform"}, default="greedy"
        How `compression` and `tolerance` choose ranks: "greedy" minimises the sum over layers of the lost share of the
        variance, "energy" explains the same share of the variance of each layer, "uniform" has ranks that are the same
        share of the smaller side.
    sequential : bool, default=True
        Whether each layer is fitted to inputs that have passed the compressed layers before it.
    n_calibration : int or None, default=1024
        Number of rows that layers are fitted to, drawn without replacement. None takes all.
    batch_size : int, default=256
        Number of rows processed at once; it bounds memory and does not change the result.
    modules : str, list of str or None, default=None
        Names of layers in the torch module, or patterns such as ``"encoder.*"``, that are changed. None takes all.
    exclude : str, list of str or None, default=None
        Names or patterns of layers that are left as they are.
    module_getter : callable or None, default=None
        Returns the torch module of the fitted estimator. None looks at `module_` and ``network()``.
    split_attention : bool, default=False
        Whether the projections of :class:`torch.nn.MultiheadAttention` are compressed, too: the layer is replaced by
        one with four linear layers, without torch's fused path.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws rows, and seeds torch where
        a clone of `estimator` is fitted.

    Attributes
    ----------
    weights_ : dict of arrays
        Weights of the compressed network, by their names in torch.
    estimator_ : estimator
        The inner estimator with the compressed network, new at each access, ready to predict and to be trained on.
    layer_report_ : list of dicts
        `name`, `type`, `shape` of the weight, `rank` (None: left as it is), `n_parameters_before`, `n_parameters` and
        `explained` share of the variance of each layer, in the order of a pass; it has ``to_frame()``.
    n_parameters_ : int
        Number of parameters of the compressed network.
    n_parameters_before_ : int
        Number of parameters of the network before.
    compression_ : float
        Their ratio.
    output_relative_error_ : float
        Mean squared change of the network's outputs on the rows of the fit, over their variance.
    classes_ : array of shape (n_classes,)
        Class labels of a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    SecondOrderPruner : Networks with most weights zero.
    sklowrank.neural.TrainedRankPruning : Networks that are trained to have low rank.

    Notes
    -----
    Of a layer ``y = W x + b`` let mu and C be the mean and the covariance of y. The affine map of rank r that leaves
    the least squared error is the projection on the r leading eigenvectors Q of C::

        y = Q (Q' W x) + b + (I - Q Q') (mu - b)

    so that the pair has the weights ``Q' W`` and Q. For "input_whitened", Q are the left singular vectors of ``W T``
    with ``T T' = E[x x']``; for "weight_svd" those of W. A convolution is r filters of its kernel and a convolution
    with a kernel of one; an embedding is a table of width r and a linear layer. A pair takes the place of a layer under
    its own name, as a :class:`torch.nn.Sequential`, where its ``r (n_in + n_out)`` weights and its bias are fewer
    numbers than the layer has.

    A layer that is a pair of low rank already, from a training rule or a compressor, is taken as the one layer that it
    stands for, and counts the parameters that it has.

    Left as they are: layers that share weights, with a warning; convolutions in groups, recurrent layers, attention
    unless `split_attention`, layers with hooks, computed or complex weights or `max_norm`, and those that no row
    reaches. Of a network that gives several outputs in a tuple or a dict the first tensor is looked at. With
    `padding_idx` an embedding has no bias, so that its padding still adds nothing.

    A fit takes a pass over the rows and an eigen-decomposition, of time ``min(n_in, n_out)^3``, per layer; with
    `tolerance` about nine times as much. Fewer parameters are not always less time: two small products can take longer
    than one on a CPU.

    References
    ----------
    A. Kaushal, T. Vaidhya, I. Rish. LORD: Low Rank Decomposition of Monolingual Code LLMs for One-Shot Compression.
    arXiv:2309.14021, 2023.

    H. Yu, J. Wu. Compressing Transformers: Features Are Low-Rank, but Weights Are Not! AAAI 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklowrank.compress import LowRankCompressor
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> network = NetworkClassifier((128, 128), max_iter=5, random_state=0).fit(X, y)
    >>> small = LowRankCompressor(FrozenEstimator(network), compression=0.3).fit(X[:300])
    >>> small.compression_ <= 0.3, small.output_relative_error_ < 0.02
    (True, True)
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"]), nn.Module],
        "rank": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right"), None],
        "compression": [Interval(Real, 0, 1, closed="right")],
        "tolerance": [Interval(Real, 0, None, closed="left"), None],
        "method": [StrOptions({"output_pca", "input_whitened", "weight_svd"})],
        "allocation": [StrOptions({"greedy", "energy", "uniform"})],
        "sequential": ["boolean"],
        "n_calibration": [Interval(Integral, 2, None, closed="left"), None],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "modules": [str, "array-like", None],
        "exclude": [str, "array-like", None],
        "module_getter": [callable, None],
        "split_attention": ["boolean"],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    layer_report_: list[dict[str, Any]]
    n_parameters_: int
    n_parameters_before_: int
    compression_: float
    output_relative_error_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        *,
        rank: int | float | None = None,
        compression: float = 0.5,
        tolerance: float | None = None,
        method: Literal["output_pca", "input_whitened", "weight_svd"] = "output_pca",
        allocation: Literal["greedy", "energy", "uniform"] = "greedy",
        sequential: bool = True,
        n_calibration: int | None = 1024,
        batch_size: int = 256,
        modules: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        module_getter: Callable[[Any], nn.Module] | None = None,
        split_attention: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.rank = rank
        self.compression = compression
        self.tolerance = tolerance
        self.method = method
        self.allocation = allocation
        self.sequential = sequential
        self.n_calibration = n_calibration
        self.batch_size = batch_size
        self.modules = modules
        self.exclude = exclude
        self.module_getter = module_getter
        self.split_attention = split_attention
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None) -> Self:
        """Fit a clone of the estimator, unless it is frozen or a torch module, and compress its network.

        Parameters
        ----------
        X : array-like, tensor, dict of inputs by their names, or what else the estimator predicts on, of n_samples rows
            The rows whose outputs are kept: a few hundred that are like those to come are enough.
        y : array-like of n_samples targets, default=None
            What a clone is fitted to, and what `tolerance` scores.

        Returns
        -------
        self : LowRankCompressor
        """
        if self.rank is not None and self.tolerance is not None:
            raise ValueError(f"rank={self.rank} and tolerance={self.tolerance} exclude each other. Set one to None.")
        X = checked_rows(self, X, reset=True, min_samples=2)
        ws = open_workspace(where_to_compute(X), device=self.device, random_state=self.random_state)
        held = hold(self.estimator, X, y, Randomness(ws.generator, ws.device, seeds_global=True), self.module_getter)
        X, y = some_rows(X, y, self.n_calibration, ws.generator)

        compressed = compress_network(held, X, y, options(self, CompressionOptions), ws.device)
        stored = stored_held(held)
        return keep(self, ws, stored, weights_=stored.weights, **_described(compressed))


def _described(compressed):
    """Return the public fitted attributes."""
    return {
        "layer_report_": compressed.report,
        "n_parameters_": compressed.n_after,
        "n_parameters_before_": compressed.n_before,
        "compression_": compressed.n_after / compressed.n_before,
        "output_relative_error_": compressed.error,
    }
