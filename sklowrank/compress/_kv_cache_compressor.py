"""Fitted networks whose attention stores fewer numbers for each token."""

from collections.abc import Callable, Sequence
from numbers import Integral
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
from .._nets.wrapping import CalibratedNetwork, checked_rows, some_rows
from ._kv_cache_compressor_solver import CacheOptions, compress_caches


class KVCacheCompressor(CalibratedNetwork, MetaEstimatorMixin, BaseEstimator):
    """Shrink the keys and values of attention in a fitted network, without training.

    A network that reads tokens one by one stores the keys and values of those before. Each
    :class:`torch.nn.MultiheadAttention` is replaced by a layer whose heads have narrower keys and values, chosen by a
    few hundred unlabelled rows so that scores and outputs change least.

    Parameters
    ----------
    estimator : estimator, skorch net, torch.nn.Module, or one of these in a FrozenEstimator or last in a Pipeline
        The network. A torch module and what is in a :class:`~sklearn.frozen.FrozenEstimator` are compressed as they
        are; of anything else a clone is fitted first, as meta-estimators of scikit-learn do. It is never changed.
    n_components : int or float, default=0.5
        Number of components. An int is the number for keys and for values of each head, at most its width; a float in
        (0, 1] is the share of the stored numbers that is kept. With "adaptive" it is the mean.
    group_ranks : {"adaptive", "uniform"}, default="adaptive"
        How components are spread over groups. These are the keys and the values of each head: "adaptive" takes those of
        a layer where most would be lost, at least one of each; "uniform" takes as many of all.
    init : {"auto", "pca"}, default="auto"
        Initialisation of the fit. "auto" keeps scores and outputs, in closed form. "pca" takes the principal components
        of the keys and of the values of each head.
    n_calibration : int or None, default=1024
        Number of rows that layers are fitted to, drawn without replacement. None takes all.
    batch_size : int, default=256
        Number of rows processed at once; it bounds memory and does not change the result.
    modules : str, list of str or None, default=None
        Names of layers in the torch module, or patterns such as ``"encoder.*"``, that are changed. None takes all
        attention layers.
    exclude : str, list of str or None, default=None
        Names or patterns of layers that are left as they are.
    module_getter : callable or None, default=None
        Returns the torch module of the fitted estimator. None looks at `module_` and ``network()``.
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
        Of each attention layer, in the order of a pass: name, key_ranks and value_ranks of its heads,
        numbers_per_token_before and numbers_per_token. ``layer_report_.to_frame()`` is a table.
    cache_ratio_ : float
        Stored numbers per token, after over before.
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
    LowRankCompressor : Fewer weights, the same cache.
    sklowrank.decomposition.MatryoshkaProjection : Fewer features for any predictor.

    Notes
    -----
    For queries q, keys k and the roots :math:`R_q`, :math:`R_k` of their moments, the latter centred because softmax
    ignores what all keys share, the bilinear form of rank r that is nearest to :math:`q^\\top k` in the mean square is

    .. math:: (S_r^{1/2} U_r^\\top R_q^{-1} q)^\\top (S_r^{1/2} V_r^\\top R_k^{-1} k), \\qquad U S V^\\top = R_q R_k

    Values are mapped by the SVD of the head's block of the output layer times the root of their covariance; the way
    back is multiplied into the output layer, and their mean goes into its bias, because weights of attention add up to
    one. "adaptive" ranks take the largest squared singular values first, as shares of those of all keys, or of all
    values, of a layer. At full width nothing changes.

    The layers of :meth:`network` are called as those of torch are, and have two methods more: ``cache(key, value)``
    gives what is stored of tokens, (batch, tokens, numbers) for keys and for values, and ``attend(query, cache,
    attn_mask=None, key_padding_mask=None)`` the outputs and the weights of each head. Torch's fused path for
    transformer layers is not taken. Left as they are: layers with keys of another width, with `add_bias_kv` or
    `add_zero_attn`, with hooks, with shared weights, and subclasses.

    A fit takes two passes over the rows, and time of the third power of the width per layer.

    References
    ----------
    B. Lin, Z. Zeng, Z. Xiao, S. Kou, T. Hou, X. Gao, H. Zhang, Z. Deng. MatryoshkaKV: Adaptive KV Compression via
    Trainable Orthogonal Projection. ICLR 2025.

    Examples
    --------
    >>> import torch
    >>> from sklowrank.compress import KVCacheCompressor
    >>> encoder = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    >>> X = torch.randn(50, 10, 16) @ torch.diag(torch.logspace(0, -3, 16))
    >>> small = KVCacheCompressor(encoder, n_components=0.5).fit(X)
    >>> small.cache_ratio_, small.output_relative_error_ < 0.01
    (0.5, True)
    >>> keys, values = small.network().self_attn.cache(X, X)
    >>> keys.shape[2] + values.shape[2]
    16
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), nn.Module],
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right")],
        "group_ranks": [StrOptions({"adaptive", "uniform"})],
        "init": [StrOptions({"auto", "pca"})],
        "n_calibration": [Interval(Integral, 2, None, closed="left"), None],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "modules": [str, "array-like", None],
        "exclude": [str, "array-like", None],
        "module_getter": [callable, None],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    layer_report_: list[dict[str, Any]]
    cache_ratio_: float
    output_relative_error_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        *,
        n_components: int | float = 0.5,
        group_ranks: Literal["adaptive", "uniform"] = "adaptive",
        init: Literal["auto", "pca"] = "auto",
        n_calibration: int | None = 1024,
        batch_size: int = 256,
        modules: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        module_getter: Callable[[Any], nn.Module] | None = None,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.n_components = n_components
        self.group_ranks = group_ranks
        self.init = init
        self.n_calibration = n_calibration
        self.batch_size = batch_size
        self.modules = modules
        self.exclude = exclude
        self.module_getter = module_getter
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None) -> Self:
        """Fit a clone of the estimator, unless it is frozen or a torch module, and compress its attention.

        Parameters
        ----------
        X : array-like, tensor, or what the estimator takes, of n_samples rows
            The rows whose keys and values are looked at: a few hundred that are like those to come are enough.
        y : array-like of n_samples targets, default=None
            What a clone is fitted to.

        Returns
        -------
        self : KVCacheCompressor
        """
        X = checked_rows(self, X, reset=True, min_samples=2)
        ws = open_workspace(np.empty((0, 0)), device=self.device, random_state=self.random_state)
        held = hold(self.estimator, X, y, Randomness(ws.generator, ws.device, seeds_global=True), self.module_getter)
        X, _ = some_rows(X, None, self.n_calibration, ws.generator)

        compressed = compress_caches(held, X, options(self, CacheOptions), ws.device)
        stored = stored_held(held)
        return keep(self, ws, stored, weights_=stored.weights, **_described(compressed))


def _described(compressed):
    """Return the public fitted attributes."""
    return {
        "layer_report_": compressed.report,
        "cache_ratio_": compressed.ratio,
        "output_relative_error_": compressed.error,
    }
