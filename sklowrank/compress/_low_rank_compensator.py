"""Quantised and pruned networks whose errors are made up for by paths of low rank."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from os import PathLike
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import HasMethods, Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.workspace import open_workspace
from .._nets.calls import outputs_of
from .._nets.found import array_of
from .._nets.holding import StoredHeld, hold, restored_held, stored_held
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.passes import calls_of
from .._nets.randomness import Randomness
from .._nets.recording import LayerReport
from .._nets.wrapping import (
    CalibratedNetwork,
    check_finite,
    checked_rows,
    live,
    relative_error,
    some_rows,
    where_to_compute,
)
from ._compensated_layers import adapter_arrays, compensated_layers, give_adapters, n_bytes, n_numbers
from ._compressed_weights import WeightOptions, compressed
from ._low_rank_compensator_solver import BLOCK, PathOptions, compensate, layers_to_take


class LowRankCompensator(CalibratedNetwork, MetaEstimatorMixin, BaseEstimator):
    """Quantise or prune a network, and make up for the error of each layer by a path of low rank.

    A network in few bits, or without most of its weights, loses accuracy. Beside each compressed weight W_c a path
    ``B (A x)`` of low rank is added, the one that brings the outputs of the layer closest to those of the full weight
    on some rows of the user's own task. It is computed in closed form, without training and without labels, and takes
    a few kilobytes: paths for several tasks can share one compressed network.

    Parameters
    ----------
    estimator : estimator, skorch net, torch.nn.Module, or one of these in a FrozenEstimator or last in a Pipeline
        The network in full precision. A torch module and what is in a :class:`~sklearn.frozen.FrozenEstimator` are
        compressed as they are; of anything else a clone is fitted first, as meta-estimators of scikit-learn do. It is
        never changed.
    compressed : fitted estimator, torch.nn.Module or None, default=None
        The same network compressed by other means, with the same names of layers: weights of the layers that are taken
        are read from it, and `compression` is ignored.
    compression : {"quantize", "prune", "prune_n_m"} or callable, default="quantize"
        How weights are compressed: "quantize" rounds them to integer codes of `bits` bits; "prune" sets the share
        `sparsity` of each layer to zero; "prune_n_m" keeps `n` of each `m` weights along the inputs. A function is
        called with the weight (out, in) and a dict with the `mean` (in,) and the uncentred second moment `second`
        (in, in) of the inputs, as numpy arrays, and returns the compressed weight.
    bits : int, default=3
        Bits of a code, from 2 to 8. Codes are symmetric about 0, from ``1 - 2^(bits - 1)`` to ``2^(bits - 1) - 1``, and
        the largest magnitude of a row of the weight has the outermost one.
    group_size : int or None, default=None
        Number of inputs that share a scale, a divisor of the number of inputs. None has one scale for each output. Of
        an embedding a scale is for each row of the table, or each `group_size` entries of it.
    sparsity : float, default=0.5
        Share of the entries of all weight matrices that are removed, in [0, 1). For ``compression="prune"`` alone, in
        each layer.
    n, m : int, default=2, 4
        Of each `m` weights, which have to divide the number of inputs, `n` are kept. For ``compression="prune_n_m"``
        alone.
    importance : {"activation", "magnitude"}, default="activation"
        Which weights are pruned: those of smallest magnitude times the root mean square of their input, or of smallest
        magnitude.
    rank : int, "auto" or dict, default=16
        Rank of the paths, at least 0, where none is added; at most the smaller side of each weight. A dict has the
        ranks of layers by their names, 0 for others. "auto" spreads `budget` over the layers.
    budget : float or None, default=None
        Largest number of entries of all B and A, as a share of those of the weights of the layers that are taken, in
        (0, 1]. For ``rank="auto"`` alone, which needs it.
    method : {"eigenspace", "activation_scale", "svd"}, default="eigenspace"
        What the paths are best for: "eigenspace" the outputs of the layers; "activation_scale" the weights times the
        mean magnitudes of their inputs; "svd" the weights. The latter two are baselines.
    correct_bias : bool, default=True
        Whether biases take the mean of the error that is left. A layer without a bias gets one.
    merge : bool, default=False
        Whether path and compressed weight are added up to a plain layer, with a dense weight: faster, and no longer
        small.
    adapter_bits : int or None, default=None
        Bits of codes in which B and A are stored, from 4 to 8, with a scale for each of their r columns and rows. None
        keeps them in the precision of the weight.
    n_calibration : int or None, default=256
        Number of rows that layers are fitted to, drawn without replacement. None takes all.
    modules : str, list of str or None, default=None
        Names of layers in the torch module, or patterns such as ``"encoder.*"``, that are changed. Names behind an
        exclamation mark, such as ``"!encoder.0"``, are left as they are. None takes all linear layers and convolutions
        but the last layer of a pass, which is taken only where a pattern matches it, as are embeddings.
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
    adapters_ : dict of tuples of arrays
        The matrices B (out, r) and A (r, in) of the path of each layer that has one, by its name; none where paths were
        merged.
    weights_ : dict of arrays
        What the network stores, by the names in torch: codes and scales, or masks and kept entries, paths and biases.
    estimator_ : estimator
        The inner estimator with the compensated network, new at each access, ready to predict; paths and biases can be
        trained.
    layer_report_ : list of dicts
        Of each layer that was taken, in the order of a pass: name, type, shape of the weight, rank of the path, squared
        error of its output on the rows of the fit over the output's variance, without compensation (`error_before`) and
        with it (`error`), bytes before and after. ``layer_report_.to_frame()`` is a table.
    nbytes_ : int
        Bytes of the network as it is stored.
    nbytes_before_ : int
        Bytes of the parameters of the network before.
    compression_ : float
        Their ratio.
    n_parameters_ : int
        Number of numbers in the compensated network, in whatever bits: codes, scales, entries that are not zero, paths.
    n_parameters_before_ : int
        Number of parameters of the network before.
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
    LowRankCompressor : Networks whose layers become pairs of low rank.
    SecondOrderPruner : Networks with most weights zero, whose other weights make up for them.

    Notes
    -----
    Of a layer with the weight W let ``D = W - W_c`` be what the compressed weight lacks, and C the covariance of its
    inputs x. With a bias that takes the mean of the error, the error of the outputs is::

        E |(D - B A) (x - E x)|^2 = |(D - B A) C^(1/2)|_F^2

    Its minimum is at ``B A = U U' D``, with the r leading eigenvectors U of ``D C D'``: the principal directions of the
    error. The bias then takes ``(D - B A) E x``. Without `correct_bias` the moment ``E x x'`` takes the place of C. No
    inverse is needed, so that inputs that are always zero do no harm. Layers follow in the order of a pass, and the
    inputs of each are those behind the compensated layers before it.

    For "auto" the squared error that each further direction takes away, over the variance of the layer's output and the
    entries that it costs, is compared over all layers, measured in the network before.

    A fit takes a pass over the rows for each layer, or for layers that are given the same tensor, and a decomposition
    of time ``min(out, in)^3``. Weights are stored as codes, packed into bytes, and scales, and made dense in each call:
    predictions take longer than with the dense network. Left as they are: layers that share weights, with a warning;
    convolutions in groups, recurrent layers, attention, layers with hooks, computed weights or `max_norm`, and those
    that no row reaches. With `padding_idx` an embedding gets no bias, so that its padding still adds nothing. A layer
    that is a pair of low rank already is taken as two layers.

    References
    ----------
    S.-Y. Liu, M. Khadkevich, N. C. Fung, C. Sakr, C.-H. H. Yang, C.-Y. Wang, S. Muralidharan, H. Yin, K.-T. Cheng,
    J. Kautz, Y.-C. F. Wang, P. Molchanov, M.-H. Chen. EoRA: Fine-tuning-free Compensation for Compressed LLM with
    Eigenspace Low-Rank Approximation. arXiv:2410.21271, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklowrank.compress import LowRankCompensator
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> network = NetworkClassifier((128, 128), max_iter=5, random_state=0).fit(X, y)
    >>> coarse = LowRankCompensator(FrozenEstimator(network), bits=2, rank=0, correct_bias=False).fit(X)
    >>> model = LowRankCompensator(FrozenEstimator(network), bits=2, rank=8, random_state=0).fit(X)
    >>> round(model.compression_, 2), model.output_relative_error_ < coarse.output_relative_error_ / 5
    (0.26, True)
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"]), nn.Module],
        "compressed": [None, HasMethods(["fit"]), nn.Module],
        "compression": [StrOptions({"quantize", "prune", "prune_n_m"}), callable],
        "bits": [Interval(Integral, 2, 8, closed="both")],
        "group_size": [Interval(Integral, 1, None, closed="left"), None],
        "sparsity": [Interval(Real, 0, 1, closed="left")],
        "n": [Interval(Integral, 1, None, closed="left")],
        "m": [Interval(Integral, 1, None, closed="left")],
        "importance": [StrOptions({"activation", "magnitude"})],
        "rank": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"}), dict],
        "budget": [Interval(Real, 0, 1, closed="right"), None],
        "method": [StrOptions({"eigenspace", "activation_scale", "svd"})],
        "correct_bias": ["boolean"],
        "merge": ["boolean"],
        "adapter_bits": [Interval(Integral, 4, 8, closed="both"), None],
        "n_calibration": [Interval(Integral, 2, None, closed="left"), None],
        "modules": [str, "array-like", None],
        "module_getter": [callable, None],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    layer_report_: LayerReport
    nbytes_: int
    nbytes_before_: int
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
        compressed: Any | None = None,
        compression: Literal["quantize", "prune", "prune_n_m"] | Callable = "quantize",
        bits: int = 3,
        group_size: int | None = None,
        sparsity: float = 0.5,
        n: int = 2,
        m: int = 4,
        importance: Literal["activation", "magnitude"] = "activation",
        rank: int | Literal["auto"] | dict[str, int] = 16,
        budget: float | None = None,
        method: Literal["eigenspace", "activation_scale", "svd"] = "eigenspace",
        correct_bias: bool = True,
        merge: bool = False,
        adapter_bits: int | None = None,
        n_calibration: int | None = 256,
        modules: str | Sequence[str] | None = None,
        module_getter: Callable[[Any], nn.Module] | None = None,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.compressed = compressed
        self.compression = compression
        self.bits = bits
        self.group_size = group_size
        self.sparsity = sparsity
        self.n = n
        self.m = m
        self.importance = importance
        self.rank = rank
        self.budget = budget
        self.method = method
        self.correct_bias = correct_bias
        self.merge = merge
        self.adapter_bits = adapter_bits
        self.n_calibration = n_calibration
        self.modules = modules
        self.module_getter = module_getter
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Compress the network and compensate for it, layer by layer.

        Parameters
        ----------
        X : array-like, tensor, dict of inputs by their names, or what else the estimator predicts on, of n_samples rows
            Rows of the task that the network is to be good at.
        y : array-like of n_samples values, default=None
            Their targets, to which an estimator is fitted that is neither frozen nor a torch module.

        Returns
        -------
        self : LowRankCompensator
        """
        _check_choices(self.n, self.m, self.rank, self.budget)
        X = checked_rows(self, X, reset=True, min_samples=2)
        ws = open_workspace(where_to_compute(X), device=self.device, random_state=self.random_state)
        randomness = Randomness(ws.generator, ws.device, seeds_global=True)
        held = hold(self.estimator, X, y, randomness, self.module_getter)
        twin = _twin(self.compressed, randomness, self.module_getter, ws.device)
        calls = calls_of(held, some_rows(X, None, self.n_calibration, ws.generator)[0])
        module = held.module.to(ws.device)
        before, sizes = outputs_of(module, calls, BLOCK, ws.device), (n_bytes(module), n_numbers(module))
        check_finite(before)
        names = layers_to_take(module, calls, self.modules)

        compress = partial(compressed, twin, options(self, WeightOptions))
        report = compensate(module, calls, names, compress, options(self, PathOptions))
        error = relative_error(outputs_of(module, calls, BLOCK, ws.device), before)
        stored = stored_held(held)
        return keep(self, ws, stored, **_described(module, stored.weights, report, sizes, error))

    @property
    def adapters_(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The matrices B (out, r) and A (r, in) of the path of each layer that has one, by its name."""
        self._check_fitted("adapters_")
        layers = compensated_layers(live(self).module)
        return {name: tuple(array_of(part) for part in layer.path) for name, layer in layers.items() if layer.rank}

    def save_adapters(self, path: str | PathLike | BinaryIO) -> None:
        """Write the paths and the biases of the compensated layers to a file, without the compressed weights.

        Parameters
        ----------
        path : str, path or binary file
            A file of numpy's format npz. Numpy appends ".npz" to a name without it.
        """
        check_is_fitted(self)
        layers = _layers_with_paths(self, live(self).module)
        figures = [[row["error_before"], row["error"]] for row in self.layer_report_]
        arrays = {"errors": np.array(figures), "output_relative_error": np.array(self.output_relative_error_)}
        np.savez(path, **adapter_arrays(layers), **arrays)

    def load_adapters(self, path: str | PathLike | BinaryIO) -> Self:
        """Replace the paths and the biases by those of a file, for another task.

        Parameters
        ----------
        path : str, path or binary file
            What :meth:`save_adapters` of a compensator of the same network has written.

        Returns
        -------
        self : LowRankCompensator

        Raises
        ------
        ValueError
            If the file has no adapters, or those of other layers or other compressed weights.
        """
        check_is_fitted(self)
        ws = open_workspace(np.empty((0, 0)), device="cpu")
        held = restored_held(recall(self, StoredHeld, ws))
        layers = _layers_with_paths(self, held.module)
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, NpzFile):
            raise ValueError(f"{path} has no adapters: it is no archive that save_adapters has written.")
        with file:
            arrays = dict(file)
        give_adapters(layers, arrays)
        report = LayerReport(
            {**row, "rank": layer.rank, "error_before": float(before), "error": float(error), "nbytes": n_bytes(layer)}
            for row, layer, (before, error) in zip(self.layer_report_, layers.values(), arrays["errors"], strict=True)
        )
        stored, sizes = stored_held(held), (self.nbytes_before_, self.n_parameters_before_)
        described = _described(held.module, stored.weights, report, sizes, float(arrays["output_relative_error"]))
        return keep(self, ws, stored, **described)


def _check_choices(n, m, rank, budget):
    if n > m:
        raise ValueError(f"n={n} is above m={m}: of every m weights n are kept. Pass at most m.")
    if rank == "auto" and budget is None:
        raise ValueError("rank='auto' needs a budget, the share of the weights that the paths may have. Pass budget.")


def _twin(compressed, randomness, module_getter, device):
    """Return the module of the user's compressed network."""
    if compressed is None:
        return None
    fitted = compressed if isinstance(compressed, nn.Module | FrozenEstimator) else FrozenEstimator(compressed)
    return hold(fitted, None, None, randomness, module_getter).module.to(device)


def _described(module, weights, report, sizes, error):
    """Return the public fitted attributes."""
    nbytes, nbytes_before = n_bytes(module), sizes[0]
    return {
        "weights_": weights,
        "layer_report_": report,
        "nbytes_": nbytes,
        "nbytes_before_": nbytes_before,
        "n_parameters_": n_numbers(module),
        "n_parameters_before_": sizes[1],
        "compression_": nbytes / nbytes_before,
        "output_relative_error_": error,
    }


def _layers_with_paths(compensator, module):
    layers = compensated_layers(module)
    if not layers:
        raise ValueError(
            f"merge={compensator.merge} has made plain layers of compressed weights and paths. Fit with merge=False to "
            "have the paths apart."
        )
    return layers
