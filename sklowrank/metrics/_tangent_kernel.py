"""The tangent kernel of a network on some rows."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.overrides import TorchFunctionMode

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import Interval, StrOptions, validate_params
from .._core.modes import in_plain_modes
from .._nets.found import find_network

_LARGEST = 10**8  # numbers of a Jacobian that is stored at once
_PROBABILITIES = {"softmax", "log_softmax", "sigmoid", "logsigmoid", "log_sigmoid"}


@validate_params(
    {
        "module": "no_validation",
        "X": "no_validation",
        "params": ["array-like", None],
        "method": [StrOptions({"jacobian", "sum"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    },
    prefer_skip_nested_validation=True,
)
@in_plain_modes
def tangent_kernel(
    module: Any,
    X: Any,
    *,
    params: Sequence[str] | None = None,
    method: str = "jacobian",
    batch_size: int | str = "auto",
) -> Any:
    r"""Return the empirical tangent kernel of a network, the kernel by which a small gradient step changes outputs.

    .. math:: K = J J^\top, \qquad J = \frac{\partial f(x_i)_a}{\partial \theta}

    with a row of J for each pair of a row of X and an output. A network whose tangent kernel stays as it was in
    training is, up to an offset, a kernel method with this kernel.

    Parameters
    ----------
    module : torch.nn.Module or fitted model
        The network: a module on any device, in any precision, or whatever holds a fitted one, such as
        :class:`~sklowrank.neural.NetworkClassifier` or a skorch net, alone or as the last step of a Pipeline. It is
        evaluated in eval mode, and left as it was. Outputs of a row may depend on that row alone.
    X : array-like or tensor of shape (n_rows, ...)
        Rows as the module, or the fitted model, takes them.
    params : sequence of str or None, default=None
        Names of the parameters in J, as in ``module.named_parameters()``, or of submodules, which mean all of theirs.
        None are all that require a gradient.
    method : {"jacobian", "sum"}, default="jacobian"
        "jacobian" is the kernel of all outputs. "sum" is the kernel of the sum of the outputs, divided by their number
        [2]_: as many rows and columns as X has rows, and one backward pass instead of one for each output.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.

    Returns
    -------
    K : array or tensor of shape (n_rows * n_outputs, n_rows * n_outputs) or (n_rows, n_rows)
        The kernel in float64; a tensor on the device of X where X is one. Row ``i * n_outputs + a`` belongs to output a
        of row i of X.

    Raises
    ------
    ValueError
        If the network has no such parameter, or gives something else than a number or a vector for each row.
    TypeError
        If `module` is, and holds, no network.

    See Also
    --------
    sklowrank.metrics.kernel_alignment : How much alike two kernels are.
    sklowrank.inspection.LearningRegime : Alignment of the tangent kernels before and after a fit.

    Notes
    -----
    A softmax, its logarithm, or a sigmoid that gives the outputs is left out: the kernel is that of the logits.

    For ``nn.Linear`` layers J is never formed. With the inputs :math:`a_i` of a layer and the derivatives
    :math:`d_{ia}` of output a by the layer's output, its weight and bias contribute

    .. math:: \langle d_{ia}, d_{jb} \rangle (\langle a_i, a_j \rangle + 1)

    in :math:`O((nk)^2 (o + p))` for n rows, k outputs, and a layer with p inputs and o outputs, rather than in
    :math:`O((nk)^2 op)`. Other parameters, and layers that are called twice, on sequences, or with tied weights, go
    through Jacobians in blocks of rows, recurrent layers row by row. Where the Jacobians would take more than 1e8
    numbers, blocks are computed again for each pair of blocks. Memory is that of K and of two blocks.

    References
    ----------
    .. [1] A. Jacot, F. Gabriel, C. Hongler, "Neural tangent kernel: convergence and generalization in neural networks",
       NeurIPS 2018.
    .. [2] M. A. Mohamadi, W. Bae, D. J. Sutherland, "A fast, well-founded approximation to the empirical neural tangent
       kernel", ICML 2023.

    Examples
    --------
    >>> import torch
    >>> from sklowrank.metrics import tangent_kernel
    >>> X = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> tangent_kernel(torch.nn.Linear(2, 1), X)  # of a linear model: that of the rows, and of the intercept
    tensor([[ 2.,  4.],
            [ 4., 26.]], dtype=torch.float64)
    """
    if not isinstance(module, nn.Module):
        found = find_network(module)
        module, rows = found.module, found.prepare(X.detach().cpu() if isinstance(X, torch.Tensor) else X)
    else:
        rows = X.detach() if isinstance(X, torch.Tensor) else torch.from_numpy(np.array(X))
    weights = _chosen(module, params)
    like = next(iter(weights.values()))
    rows = rows.to(like.device, like.dtype if rows.is_floating_point() else None)
    if not len(rows):
        raise ValueError("X has n_rows=0. Pass at least one row.")
    with _in_eval_mode(module):
        K = _kernel(module, rows, weights, method == "sum", batch_size)
    return K.to(X.device) if isinstance(X, torch.Tensor) else K.cpu().numpy()


def _chosen(module, names):
    """Return the parameters of some names, or of submodules of these names; copies that require a gradient."""
    known = dict(module.named_parameters())
    if names is None:
        chosen = [name for name, parameter in known.items() if parameter.requires_grad]
        if not chosen:
            raise ValueError("The network has no parameter that requires a gradient. Name some in params.")
    else:
        names = [str(name) for name in names]
        below = {name: [full for full in known if full == name or full.startswith(f"{name}.")] for name in names}
        for name, found in below.items():
            if not found:
                raise ValueError(f"params has {name!r}, but the network has only {', '.join(known)}.")
        chosen = [full for full in known if any(full in found for found in below.values())]
        if not chosen:
            raise ValueError("params is empty. Name at least one parameter, or pass None for all.")
    return {name: known[name].detach().clone().requires_grad_() for name in chosen}


@contextmanager
def _in_eval_mode(module) -> Iterator[None]:
    """Evaluate in eval mode, and put each part back into its own mode."""
    were_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in were_training:
            part.training = True


class _Logits(TorchFunctionMode):
    """Notes what is made a probability, and of what."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", None) in _PROBABILITIES:
            self.seen.append((result, args[0] if args else (kwargs or {})["input"]))
        return result

    def before(self, outputs):
        """Return the outputs before they were made probabilities, if they were."""
        for result, logits in reversed(self.seen):
            outputs = logits if result is outputs else outputs
        return outputs


def _outputs(module, weights, X, summed):
    """Return the logits (n, k) with the given weights; their sum (n, 1) over sqrt(k)."""
    with _Logits() as mode:
        outputs = functional_call(module, weights, (X,))
    outputs = mode.before(outputs)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim < 1 or len(outputs) != len(X):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(f"The network gave {got} for {len(X)} rows. It has to give a number or a vector for each row.")
    outputs = outputs.reshape(len(X), -1)
    return outputs.sum(1, keepdim=True) / outputs.shape[1] ** 0.5 if summed else outputs


def _kernel(module, X, weights, summed, batch_size) -> torch.Tensor:
    """Return the tangent kernel in float64: linear layers by products, the rest by Jacobians."""
    layers = _linear_layers(module, weights)
    widest = sum(layer.out_features for layer in layers.values())
    with torch.no_grad():
        n_outputs = _outputs(module, weights, X[:1], summed).shape[1]
    size = 8 * (n_outputs * widest + sum(layer.in_features for layer in layers.values()) + X[0].numel())
    block = rows_per_block(batch_size, len(X), size)
    parts = list(
        in_blocks(lambda at: _signals(module, X[at], weights, layers, summed), len(X), block, bytes_per_row=size)
    )
    K = torch.zeros(2 * (len(X) * n_outputs,), dtype=torch.float64, device=X.device)
    rest = dict(weights)
    for path in layers:
        signals = [part.get(path) for part in parts]
        if any(signal is None for signal in signals):
            continue
        A, D = (torch.cat([getattr(signal, name) for signal in signals]).double() for name in ("inputs", "derivatives"))
        has_weight, has_bias = (rest.pop(f"{path}.{name}", None) is not None for name in ("weight", "bias"))
        of_rows = (A @ A.T if has_weight else A.new_zeros(len(A), len(A))) + float(has_bias)
        D = D.flatten(0, 1)
        K.view(len(X), n_outputs, len(X), n_outputs).addcmul_(
            (D @ D.T).view(len(X), n_outputs, len(X), n_outputs), of_rows[:, None, :, None]
        )
    if rest:
        _add_by_jacobians(K, module, X, weights, list(rest), summed, n_outputs, batch_size)
    return K


# Linear layers


class _Signal(NamedTuple):
    """What a linear layer saw of rows, and what the outputs depend on."""

    inputs: torch.Tensor  # (n, p)
    derivatives: torch.Tensor  # (n, k, o) of the outputs by the outputs of the layer


def _linear_layers(module, weights: Collection[str]) -> dict[str, nn.Linear]:
    """Return linear layers of which parameters are chosen, and whose parameters belong to no other layer, by path."""
    owners: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {
        path: layer
        for path, layer in module.named_modules()
        if type(layer) is nn.Linear
        and path
        and "weight" in layer._parameters  # no weight that is computed from other parameters
        and all(owners[id(parameter)] == 1 for parameter in layer.parameters())
        and any(f"{path}.{name}" in weights for name in layer._parameters)
    }


def _signals(module, X, weights, layers, summed) -> dict[str, _Signal]:
    """Return what layers saw of rows; without layers whose gradients are not those of one product."""
    calls: dict[str, list] = {path: [] for path in layers}

    def note(path, layer, args, output):
        calls[path].append((args[0].detach().clone(), output))
        return output.clone()  # a later operation in place is not to change what is kept

    handles = [layer.register_forward_hook(partial(note, path)) for path, layer in layers.items()]
    try:
        outputs = _outputs(module, weights, X, summed)
    finally:
        for handle in handles:
            handle.remove()
    once = {path: seen[0] for path, seen in calls.items() if len(seen) == 1 and _is_of_rows(seen[0][0], X)}
    if not once or not outputs.requires_grad:
        return {}
    ends = [output for _, output in once.values()]
    per_output = [_gradients(outputs[:, j].sum(), ends) for j in range(outputs.shape[1])]
    derivatives = [torch.stack(parts, 1) for parts in zip(*per_output)]
    found = {path: _Signal(once[path][0], D) for path, D in zip(once, derivatives)}
    names = [path for path in found if f"{path}.weight" in weights]
    whole = _gradients(outputs.sum(), [weights[f"{path}.weight"] for path in names])
    wrong = {path for path, gradient in zip(names, whole) if not _explains(found[path], gradient)}
    return {path: signal for path, signal in found.items() if path not in wrong}


def _is_of_rows(inputs, X):
    return inputs.ndim == 2 and len(inputs) == len(X)


def _gradients(value, at):
    if not at:
        return ()
    found = torch.autograd.grad(value, at, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(point) if gradient is None else gradient for point, gradient in zip(at, found)]


def _explains(signal, gradient):
    """Return whether the product gives the gradient of the weight, which it does not where it is used elsewhere too."""
    A, D = signal.inputs, signal.derivatives.sum(1)
    error = (D.T @ A - gradient).norm()
    return bool(error <= torch.finfo(A.dtype).eps ** 0.5 * (D.abs().T @ A.abs()).norm() + torch.finfo(A.dtype).tiny)


# Other parameters


def _add_by_jacobians(K, module, X, weights, names, summed, n_outputs, batch_size) -> None:
    """Add to K (n k, n k) the products of Jacobians with respect to some of the weights."""
    fixed = {name: weight.detach() for name, weight in weights.items() if name not in names}
    moving = {name: weights[name].detach() for name in names}

    def outputs_of(moving, x):
        return _outputs(module, {**fixed, **moving}, x[None], summed)[0]

    by_row = _jacobians_of(outputs_of, moving, X[:1])
    per_row = n_outputs * sum(weight.numel() for weight in moving.values())
    block = max(1, min(_LARGEST // (2 * per_row), rows_per_block(batch_size, len(X), 1)))

    def jacobian(at):
        with _without_hints():
            return [part.flatten(0, 1).flatten(1) for part in by_row(moving, X[at]).values()]

    starts = range(0, len(X), block)
    kept = [jacobian(slice(start, start + block)) for start in starts] if len(X) * per_row <= _LARGEST else None
    for a, i in enumerate(starts):
        J = kept[a] if kept else jacobian(slice(i, i + block))
        for b, j in enumerate(starts[: a + 1]):
            L = J if a == b else kept[b] if kept else jacobian(slice(j, j + block))
            product = sum(left.double() @ right.double().T for left, right in zip(J, L))
            rows, columns = (slice(s * n_outputs, (s + block) * n_outputs) for s in (i, j))
            K[rows, columns] += product
            if a != b:
                K[columns, rows] += product.T


def _jacobians_of(outputs_of, moving, X):
    """Return the function that gives the Jacobians of rows; row by row where a layer cannot be vectorised over rows."""
    jacobian = jacrev(outputs_of)
    at_once = vmap(jacobian, (None, 0))
    try:
        with _without_hints():
            at_once(moving, X)
    except RuntimeError:  # of recurrent layers, which change their states in place
        return partial(_one_by_one, outputs_of)
    return at_once


def _one_by_one(outputs_of, moving, X):
    """Return the Jacobians of rows, by a backward pass for each row and output."""
    parts = []
    for x in X:
        leaves = {name: weight.detach().requires_grad_() for name, weight in moving.items()}
        outputs = outputs_of(leaves, x)
        gradients = [_gradients(output, list(leaves.values())) for output in outputs]
        parts.append([torch.stack(of_outputs) for of_outputs in zip(*gradients)])
    return dict(zip(moving, (torch.stack(of_rows) for of_rows in zip(*parts))))


@contextmanager
def _without_hints() -> Iterator[None]:
    """Leave out what torch says of operations that it vectorises by a loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        yield
