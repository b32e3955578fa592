"""How a network is built, as plain data: it is pickled, and rebuilt where there is no GPU."""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .layers import as_tensor, kind_and_shape, layer_of, linear_layers, low_rank_start, mlp
from .randomness import fixed_randomness

# Settings of skorch that parameters of the estimator decide.
_RESERVED = ("module", "criterion", "dataset", "batch_size", "lr", "max_epochs", "device", "verbose", "warm_start")
_RESERVED_PREFIXES = ("iterator_train", "iterator_valid", "criterion__", "dataset__")


class Edit(NamedTuple):
    """A layer that has taken the place of another one."""

    path: str  # of the layer in the module
    kind: str  # as layers.kind_and_shape says it
    shape: tuple[int, ...]


class Expansion(NamedTuple):
    """How trained weights follow from those at the start and from fewer numbers, which are what is stored."""

    kind: str  # as `expands` names it
    shape: tuple[int, ...]  # the number of numbers, and what else the function of that kind takes


class Start(NamedTuple):
    """How the weights at the start were drawn."""

    seed: int | None = None  # None: they cannot be drawn again
    init_rank: int | None = None


class Architecture(NamedTuple):
    """How a network is built."""

    module: Any  # None: the default network; else the user's class, callable or instance
    params: dict[str, Any]  # arguments of the class or callable, or of the default network
    n_in: tuple[int, ...]  # the shape of one row: (8,) for tables, (1, 28, 28) for images; (): module is a skeleton
    n_out: int | None = None  # None: a trunk, of whatever width
    edits: tuple[Edit, ...] = ()  # in order
    start: Start = Start()
    expansion: Expansion | None = None
    n_dense: int | None = None  # parameters before layers of a skeleton were replaced
    of_default: bool = False  # whether the skeleton is that of a default network


def split_params(net_params: dict | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of the module, and those of skorch.

    Raises
    ------
    ValueError
        If a name belongs to a parameter of the estimator.
    """
    net_params = net_params or {}
    for name in net_params:
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise ValueError(
                f"net_params={{{name!r}: ...}} cannot be set: the estimator decides it. Use its own parameters "
                "(module, batch_size, learning_rate, device, verbose, ...)."
            )
    module = {name.removeprefix("module__"): v for name, v in net_params.items() if name.startswith("module__")}
    return module, {name: v for name, v in net_params.items() if not name.startswith("module__")}


def architecture_of(
    module: Any, net_params: dict | None, n_in: tuple[int, ...], n_out: int | None = None, **default: Any
) -> Architecture:
    """Return the architecture that an estimator's parameters name.

    `default` are the arguments of the default network; ``module__`` entries of `net_params` take their places.

    Raises
    ------
    ValueError
        If the default network has no such argument, or there are arguments for an instance.
    """
    params = split_params(net_params)[0]
    if module is None:
        for name in params:
            if name not in default:
                valid = ", ".join(f"module__{known}" for known in default if known != "hidden_layer_sizes")
                raise ValueError(f"net_params={{'module__{name}': ...}} is unknown to the default network: {valid}.")
        params = {**default, **params}
    elif isinstance(module, nn.Module) and params:
        raise ValueError("net_params has module__ entries, but module is an instance. Pass its class instead.")
    return Architecture(module, params, tuple(n_in), n_out)


def build(
    architecture: Architecture,
    generator: torch.Generator | None,
    head: Callable[[nn.Module, int, torch.Generator | None], nn.Module] | None = None,
) -> nn.Module:
    """Return a new network in float32, on the CPU; the user's own draws under :meth:`Randomness.scope`.

    Our layers draw from `generator`; without one they are not initialised. An instance is copied. A class or function
    gets `n_features` and `n_outputs` where it has parameters of these names. `head` makes the network from a trunk, its
    width and the generator. A skeleton is returned as it is: it has shapes and no numbers, see :func:`restore`.

    Raises
    ------
    ValueError
        If the user's network does not take rows of this shape, or gives outputs of another one.
    """
    module, params, n_in, n_out, edits = architecture[:5]
    if is_skeleton(architecture):
        shapes = copy.deepcopy(module)
        replay(shapes, edits)
        return shapes
    if module is None:
        net: nn.Module = mlp(n_in, n_out, generator, **params)
    elif isinstance(module, nn.Module):
        net = copy.deepcopy(module)
    else:
        sizes = {"n_features": n_in[0] if len(n_in) == 1 else n_in, "n_outputs": n_out}
        known = inspect.signature(module).parameters
        net = module(**{name: n for name, n in sizes.items() if name in known and n is not None}, **params)
    net = net.to(device="cpu", dtype=torch.float32)
    if head is not None:
        net = head(net, width_of(net, n_in), generator)
    elif module is not None:
        width_of(net, n_in, n_out)
    replay(net, edits)
    return net


def width_of(module: nn.Module, n_in: tuple[int, ...], n_out: int | None = None) -> int:
    """Return the number of outputs, by a pass of one row.

    Raises
    ------
    ValueError
        If the network does not take such a row, or the output is not a matrix with one row per row of the input and
        `n_out` columns.
    """
    size = n_in[0] if len(n_in) == 1 else n_in
    try:
        with torch.inference_mode():
            out = module.eval()(torch.zeros(1, *n_in, device="cpu", dtype=torch.float32))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"module has to map rows of n_features_in_={size} columns to (n, width), but failed on one row: {error}. "
            f"Give its first layer {size} inputs; a class or function gets that number if it has a parameter "
            "n_features."
        ) from error
    if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != 1 or out.shape[1] != (n_out or out.shape[1]):
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"module has to map (n, {size}) to (n, {n_out or 'width'}); one row gave {got}.")
    return out.shape[1]


def edited(module: nn.Module, path: str, layer: nn.Module) -> Edit:
    """Put a layer in the place of another one, on its device and in its precision; return what to remember."""
    former = next(module.get_submodule(path).parameters())
    kind, shape = kind_and_shape(layer)
    module.set_submodule(path, layer.to(device=former.device, dtype=former.dtype))
    return Edit(path, kind, shape)


def replay(module: nn.Module, edits: Iterable[Edit]) -> None:
    """Put layers of the same kinds and shapes in their places where they are not; their weights are to be loaded."""
    for path, kind, shape in edits:
        if kind_and_shape(module.get_submodule(path)) != (kind, tuple(shape)):
            edited(module, path, layer_of(kind, shape))


def same_network(a: Architecture, b: Architecture) -> bool:
    """Return whether two architectures start from the same network, whatever has become of its layers."""
    same_kind = a.module is b.module or (isinstance(a.module, nn.Module) and type(a.module) is type(b.module))
    return same_kind and (a.params, a.n_in, a.n_out) == (b.params, b.n_in, b.n_out)


def start_at_low_rank(module: nn.Module, rank: int) -> None:
    """Give the weights between hidden layers the nearest weights of some rank, at the norms that they have.

    Raises
    ------
    ValueError
        If there is no such weight, or one with fewer rows or columns.
    """
    inner = [layer for _, layer in linear_layers(module)[1:-1]]
    if not inner:
        raise ValueError(f"init_rank={rank} needs a weight between two hidden layers. Pass more layers, or None.")
    widest = min(min(layer.weight.shape) for layer in inner)
    if rank > widest:
        raise ValueError(f"init_rank={rank} is above the width {widest} of a hidden layer. Pass at most {widest}.")
    with torch.no_grad():
        for layer in inner:
            layer.weight.copy_(low_rank_start(layer.weight, rank))


def multiply_out(module: nn.Module) -> None:
    """Replace thin layers that have more numbers than their product by one linear layer each."""
    for path, layer in linear_layers(module):
        if type(layer) is not nn.Linear:
            n_in, n_out, *_, bias = layer.shape
            if sum(parameter.numel() for parameter in layer.parameters()) >= n_out * (n_in + bias):
                edited(module, path, layer.multiplied_out())


def as_numpy(weights: Mapping[str, torch.Tensor | np.ndarray]) -> dict[str, np.ndarray]:
    """Return weights as arrays with memory of their own, floats in float32: what a fitted estimator stores.

    Arrays are left as they are.
    """
    return {name: value if isinstance(value, np.ndarray) else _array(value) for name, value in weights.items()}


def _array(value):
    return (value.detach().float() if value.is_floating_point() else value).cpu().numpy().copy()


def started(architecture: Architecture) -> nn.Module:
    """Return the network as it was when the training started, without edits, with weights that are drawn again."""
    randomness = fixed_randomness(architecture.start.seed)
    with randomness.scope():
        net = build(architecture._replace(edits=()), randomness.layers)
    if architecture.start.init_rank is not None:
        start_at_low_rank(net, architecture.start.init_rank)
    return net


def draws_again(architecture: Architecture, net: nn.Module) -> bool:
    """Return whether the weights of a network at its start are drawn again, bit for bit, by its seed.

    Not those of an instance, which the user may change, nor those of code that has random numbers of its own.
    """
    if architecture.module is None:
        return True
    if isinstance(architecture.module, nn.Module):
        return False
    again = started(architecture).state_dict()
    return all(torch.equal(value, again[name]) for name, value in net.state_dict().items())


# Functions that take the network at its start and what is stored, by the kind of the expansion.
_EXPANSIONS: dict[str, Callable[..., None]] = {}


def expands(kind: str):
    """Register a function that trains a network again from the stored numbers, and return it.

    It is called with the network at its start, the stored weights and the shape of the :class:`Expansion`, and gives
    the network its trained weights in place. Stored weights of the network's own names are loaded afterwards.
    """

    def register(function):
        _EXPANSIONS[kind] = function
        return function

    return register


def expanded(architecture: Architecture, weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return all weights of a network for what is stored of them."""
    if architecture.expansion is None:
        return weights
    net = started(architecture)
    _EXPANSIONS[architecture.expansion.kind](net, weights, architecture.expansion.shape)
    names = net.state_dict()
    return {**names, **{name: value for name, value in weights.items() if name in names}}


def copied_module(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a copy of a module; `memo` are copies of some of its tensors, by their ids.

    Attributes that were computed of parameters with gradients, as torch.nn.utils.weight_norm leaves them, are copied
    without these: torch itself refuses.
    """
    memo = {} if memo is None else memo
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(module, memo)


def without_weights(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose weights have shapes and no numbers; ties among them stay.

    These are its parameters and the buffers of its state dict, on torch's device "meta". Other buffers come to the CPU.
    """
    weights = module.state_dict(keep_vars=True).values()
    stored = {id(value) for value in weights}
    memo: dict[int, Any] = {
        id(buffer): buffer.detach().cpu().clone() for buffer in module.buffers() if id(buffer) not in stored
    }
    for value in weights:
        if isinstance(value, torch.Tensor):
            shape = torch.empty_like(value, device="meta").detach()
            is_parameter = isinstance(value, nn.Parameter)
            memo[id(value)] = nn.Parameter(shape, requires_grad=value.requires_grad) if is_parameter else shape
    return copied_module(module, memo).eval()


def with_weights(
    skeleton: nn.Module, weights: Mapping[str, np.ndarray | torch.Tensor], device: torch.device | str = "cpu"
) -> nn.Module:
    """Return a copy of a skeleton with weights of its own, in eval mode."""
    memo: dict[int, Any] = {}
    for name, value in skeleton.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor) and id(value) not in memo:
            number = as_tensor(weights[name]).detach().to(device, value.dtype, copy=True)
            is_parameter = isinstance(value, nn.Parameter)
            memo[id(value)] = nn.Parameter(number, requires_grad=value.requires_grad) if is_parameter else number
    return copy.deepcopy(skeleton, memo).to(device).eval()


def answers_exactly(architecture: Architecture) -> bool:
    """Return whether answers are computed in float64: a module of the user may take float32 alone."""
    return architecture.module is None or architecture.of_default


def is_skeleton(architecture: Architecture) -> bool:
    """Return whether the module of an architecture is one without weights, to which nothing has to be added."""
    return isinstance(architecture.module, nn.Module) and not architecture.n_in


def load_weights(module: nn.Module, weights: Mapping[str, np.ndarray | torch.Tensor], device) -> nn.Module:
    """Put stored weights into a module, and the module on a device, ready to predict."""
    module.load_state_dict({name: as_tensor(value) for name, value in weights.items()})
    return module.to(device).eval()


def restore(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray | torch.Tensor],
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    head: Callable | None = None,
) -> nn.Module:
    """Return the network with its weights, ready to predict, edits replayed.

    With a generator it can be trained on: dropout draws from it.
    """
    if is_skeleton(architecture):
        return with_weights(build(architecture, None), weights, device)
    with fixed_randomness().scope():
        net = build(architecture, generator, head)
    return load_weights(net, expanded(architecture, weights), device)
