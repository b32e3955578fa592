"""The one bridge to skorch: seeded training, weights as numpy arrays, modules rebuilt on demand."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from torch import nn

# What a method decides itself: its own parameters say it, so that nothing can be said twice.
_RESERVED = ("module", "criterion", "dataset", "batch_size", "lr", "max_epochs", "device", "verbose", "warm_start")
_RESERVED_PREFIXES = ("iterator_train", "iterator_valid", "criterion__", "dataset__")


class Epoch(NamedTuple):
    """What is left of an epoch."""

    loss: float  # its mean over the batches; over the validation rows where there are any
    weights: dict[str, torch.Tensor]  # of the best epoch so far
    last: bool


class Randomness:
    """Torch's global generators, borrowed: seeded for one fit, and given back as they were after each use.

    Layers, dropout and the user's callbacks draw from the global generators, whatever we do. Under :meth:`lent` these
    go on where the last use left them, the default device is the CPU, and afterwards nothing has happened.
    """

    def __init__(self, generator: torch.Generator, device: torch.device):
        self._seed = int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64))
        self._gpus = [device] if device.type == "cuda" else []
        self._states: list[torch.Tensor] = []

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the block draw from the borrowed generators."""
        with torch.random.fork_rng(devices=self._gpus), _cpu_by_default():
            if self._states:
                torch.set_rng_state(self._states[0])
                for gpu, state in zip(self._gpus, self._states[1:]):
                    torch.cuda.set_rng_state(state, gpu)
            else:
                torch.default_generator.manual_seed(self._seed)
                for gpu in self._gpus:
                    with torch.cuda.device(gpu):
                        torch.cuda.manual_seed(self._seed)
            try:
                yield
            finally:
                self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in self._gpus)]


def _cpu_by_default():
    """Make the CPU the default device; where it is, do nothing, because the context would slow down each call."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


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


def build_trunk(module, module_params: dict[str, Any], n_features: int, sizes: Sequence[int]) -> nn.Module:
    """Return a network of `n_features` inputs in float32, on the CPU: the default one, or the user's own.

    An instance is copied. A class or function is called with `module_params`, and with `n_features` if it has a
    parameter of that name. Draw under :meth:`Randomness.lent`.
    """
    if module is None:
        return mlp(n_features, sizes)
    if isinstance(module, nn.Module):
        if module_params:
            raise ValueError("net_params has module__ entries, but module is an instance. Pass its class instead.")
        trunk = copy.deepcopy(module)
    else:
        if "n_features" in inspect.signature(module).parameters:
            module_params = {"n_features": n_features, **module_params}
        trunk = module(**module_params)
    return trunk.to(device="cpu", dtype=torch.float32)


def mlp(n_features: int, sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers of the given sizes with ReLU, and batch normalisation after the first."""
    place: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip([n_features, *sizes], sizes)):
        layers.append(nn.Linear(n_in, n_out, **place))
        if i == 0:
            layers.append(nn.BatchNorm1d(n_out, **place))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def width_of(trunk: nn.Module, n_features: int) -> int:
    """Return the number of outputs, by a pass of one row.

    Raises
    ------
    ValueError
        If the output is not a matrix with one row per row of the input.
    """
    with torch.inference_mode():
        out = trunk.eval()(torch.zeros(1, n_features, device="cpu", dtype=torch.float32))
    if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != 1:
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ValueError(f"module has to map (n, {n_features}) to (n, width); one row gave {got}.")
    return out.shape[1]


def as_numpy(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return weights as arrays with memory of their own: what a fitted estimator stores."""
    return {name: value.detach().cpu().numpy().copy() for name, value in weights.items()}


def load_weights(module: nn.Module, weights: dict[str, np.ndarray], device: torch.device) -> nn.Module:
    """Put stored weights into a module, and the module on a device, ready to predict."""
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return module.to(device).eval()


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def train(
    module: nn.Module,
    *,
    objective: Callable[[Any, Any], torch.Tensor],
    make_batch: Callable[[torch.Tensor], tuple[Any, Any]],
    n_rows: int,
    n_epochs: int,
    n_batches: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    randomness: Randomness,
    generator: torch.Generator,
    device: torch.device,
    net_params: dict[str, Any],
    settled: Callable[[list[float]], bool] | None = None,
) -> Iterator[Epoch]:
    """Train `module` in place with skorch, an epoch at a time; it ends with the weights of the best epoch.

    An epoch is `n_batches` batches of `batch_size` random rows at most, none of them twice. `make_batch` turns the
    indices of rows into inputs and target; `objective` turns outputs and target into the loss. Adam, unless
    `net_params` names another optimizer. A callback of skorch that raises KeyboardInterrupt at the end of an epoch, as
    its EarlyStopping does, ends the training, and so does `settled`, which sees the losses of all epochs so far.

    Raises
    ------
    ValueError
        If the loss is no longer finite.
    """
    settings: dict[str, Any] = {"optimizer__weight_decay": weight_decay, "train_split": None}
    if "optimizer" not in net_params:
        settings |= {"optimizer": torch.optim.Adam, "optimizer__fused": True}
    own = {"lr": learning_rate, "batch_size": batch_size, "device": str(device), "verbose": 1, "max_epochs": n_epochs}
    net = _Net(module, nn.Identity, **{**settings, **net_params, **own})
    net.objective, net.make_batch, net.n_batches, net.generator = objective, make_batch, n_batches, generator
    with randomness.lent():
        net.initialize()
        net.notify("on_train_begin", X=None, y=None)
        fitted, held_out = net.get_split_datasets(np.arange(n_rows))
        batches = net.get_iterator(fitted, training=True)
        others = None if held_out is None else net.get_iterator(held_out)
    losses, best, stopped = [float("inf")], weights_of(module), False
    for epoch in range(1, n_epochs + 1):
        with randomness.lent():
            net.notify("on_epoch_begin", dataset_train=fitted, dataset_valid=held_out)
            net.run_single_epoch(batches, training=True, prefix="train", step_fn=net.train_step)
            net.run_single_epoch(others, training=False, prefix="valid", step_fn=net.validation_step)
            try:
                net.notify("on_epoch_end", dataset_train=fitted, dataset_valid=held_out)
            except KeyboardInterrupt:
                stopped = True
            loss = net.history[-1, "train_loss" if others is None else "valid_loss"]
            if not np.isfinite(loss):
                raise ValueError(f"The loss became {loss} in training. Lower the learning rate, or scale the features.")
            if loss < min(losses):
                best = weights_of(module)
            losses.append(loss)
            last = stopped or epoch == n_epochs or (settled is not None and settled(losses[1:]))
            if last:
                net.notify("on_train_end", X=None, y=None)
                module.load_state_dict(best)
        yield Epoch(loss, best, last)
        if last:
            break


class _Net(NeuralNet):
    """Skorch's network with batches made from row indices, and a loss that sees whole outputs."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return self.objective(y_pred, y_true)

    @property
    def _default_callbacks(self):
        """Leave out the table that is printed: its lines are made, at some cost, even if nobody sees them."""
        return [(name, callback) for name, callback in super()._default_callbacks if name != "print_log"]

    def get_iterator(self, dataset, training=False):
        rows = torch.from_numpy(np.asarray(getattr(dataset, "indices", range(len(dataset)))))
        return _Batches(rows, self.batch_size, self.n_batches, self.make_batch, self.generator)


class _Batches:
    """Random batches of equal size, drawn anew whenever they are walked; rows that fill no batch are left out."""

    def __init__(self, rows, batch_size, most, make, generator):
        self.rows, self.make, self.generator = rows, make, generator
        self.size = min(batch_size, len(rows))
        self.count = min(most, len(rows) // self.size)

    def __len__(self):
        return self.count

    def __iter__(self):
        order = torch.randperm(len(self.rows), generator=self.generator, device="cpu", dtype=torch.int64)
        for batch in order[: self.count * self.size].split(self.size):
            yield self.make(self.rows[batch])
