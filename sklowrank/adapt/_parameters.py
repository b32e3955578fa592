"""Parameters and attributes that adapters share: their ranges and their descriptions, written once."""

from numbers import Integral, Real

from torch import nn

from .._core.compat import HasMethods, Interval, StrOptions
from .._core.docs import documented
from .._nets.parameters import NETWORK_CONSTRAINTS

ADAPTER_CONSTRAINTS = {
    "estimator": [HasMethods(["fit", "predict"]), nn.Module],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "learning_rate": NETWORK_CONSTRAINTS["learning_rate"],
    "batch_size": NETWORK_CONSTRAINTS["batch_size"],
    "weight_decay": NETWORK_CONSTRAINTS["weight_decay"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "n_iter_no_change": NETWORK_CONSTRAINTS["n_iter_no_change"],
    "head": [StrOptions({"auto", "keep", "train", "reset"})],
    "modules": [str, "array-like", None],
    "exclude": [str, "array-like", None],
    "module_getter": [callable, None],
    "device": NETWORK_CONSTRAINTS["device"],
    "random_state": NETWORK_CONSTRAINTS["random_state"],
    "verbose": NETWORK_CONSTRAINTS["verbose"],
}

_TEXTS = {
    "estimator": """
    estimator : estimator with a torch network, mostly in a FrozenEstimator
        A skorch net, a network of this package, any classifier that shows its torch module as `module_`, or a
        Pipeline with one of these last. What is in a :class:`~sklearn.frozen.FrozenEstimator` is adapted as it is; of
        anything else a clone is fitted to the same rows first. It is never changed.
""",
    "training": """
    max_iter : int, default=60
        Maximum number of iterations. An iteration is an epoch; 0 keeps the answers of the network.
    learning_rate : float, default=1e-2
        Step size of the optimizer. It is AdamW.
    batch_size : int, default=64
        Number of rows per training step; it changes the result.
    weight_decay : float, default=0.0
        Strength of the weight decay of the optimizer. It acts on what is trained alone.
    validation_fraction : float, default=0.0
        Share of the training rows that is held out. The best epoch by their loss is kept. With 0 all rows are trained
        on, for `max_iter` epochs.
    n_iter_no_change : int, default=10
        Number of epochs without an improvement of the loss of the held-out rows after which training stops. Not
        used where `validation_fraction` is 0.
    head : {"auto", "keep", "train", "reset"}, default=HEAD
        What becomes of the last linear layer. "keep": it is a layer like the others and gets an update. "train": it
        is trained in full. "reset": a new layer for the labels of y takes its place. "auto": "train" where the
        network has all labels of y among its classes, else "reset".
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
        Seed or generator of random numbers; pass an int for reproducible results. It decides the start, batches and
        dropout.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration. An iteration is an epoch.
""",
    "attributes": """
    weights_ : dict of arrays
        The adapter: numbers of the updates, and all else that was trained, by their names.
    estimator_ : estimator
        The inner estimator with the adapted network, new at each access.
    n_adapter_parameters_ : int
        Number of parameters of the updates.
    n_trainable_parameters_ : int
        Number of parameters that were trained: with those of the head, of biases and of norms.
    layer_report_ : list of dicts
        `name`, `type`, `shape`, `ranks` and `n_parameters` of each layer with an update; it has ``to_frame()``.
    loss_curve_ : list of float
        Loss of each epoch; of the held-out rows, where there are some.
    n_iter_ : int
        Number of epochs.
    classes_ : array of shape (n_classes,)
        Class labels of a classifier: those of the network, or those of y where the head was reset.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.
""",
}


def adapter_texts(*, head: str):
    """Fill the lines ``<estimator>``, ``<training>`` and ``<attributes>`` of a class's docstring."""

    return documented(**{name: text.replace("HEAD", f'"{head}"') for name, text in _TEXTS.items()})
