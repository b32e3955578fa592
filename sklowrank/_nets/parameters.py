"""Parameters that estimators with networks share: their ranges and their descriptions, written once."""

from numbers import Integral, Real

from .._core.compat import Interval
from .._core.docs import documented

NETWORK_CONSTRAINTS = {
    "hidden_layer_sizes": ["array-like"],
    "module": [callable, None],
    "net_params": [dict, None],
    "learning_rate": [Interval(Real, 0, None, closed="left")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

_NETWORK = """
    module : class, callable, torch.nn.Module or None, default=None
        A network in place of the default one, from (n, n_features) to (n, {width}){follows}.
        A class or function is called with the ``module__`` entries of `net_params`, and with `n_features` if it has a
        parameter of that name; an instance is copied. For pickling it has to be importable.
    net_params : dict or None, default=None
        More settings in skorch's names, for example ``{{"module__dropout": 0.1, "callbacks": [...]}}``.
        The default network takes {module_params}. `on_train_end` of callbacks is called however the training
        ends. EarlyStopping ends it; any other KeyboardInterrupt in a callback leaves `fit`, as Ctrl+C does.
"""
_COMPUTING = """
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It decides weights and
        batches, and dropout where there is any.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration. An iteration is an epoch.
"""


def network_parameters(
    *,
    module_params: str = "",
    width: str = "n_outputs",
    follows: str = "",
):
    """Fill the lines ``<network parameters>`` and ``<computing parameters>`` of a class's docstring.

    `module_params` says which ``module__`` entries the default network takes, `width` names the number of outputs of a
    user's module, and `follows` says what is put behind it. Estimators without these parameters give nothing.
    """

    network = _NETWORK.format(width=width, follows=follows, module_params=module_params)
    return documented(**{"network parameters": network, "computing parameters": _COMPUTING})
