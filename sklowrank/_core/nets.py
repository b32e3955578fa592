"""The one bridge to skorch: seeded training, weights as numpy arrays, modules rebuilt on demand."""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping
from torch import nn

# What a method decides itself: its own parameters say it, so that nothing can be said twice.
_RESERVED = ("module", "criterion", "dataset", "batch_size", "lr", "max_epochs", "device", "verbose", "warm_start")
_RESERVED_PREFIXES = ("iterator_train", "iterator_valid", "criterion__", "dataset__")


# Torch's global generators belong to the process: one fit at a time may borrow them.
_GLOBAL_GENERATORS = threading.RLock()


class Epoch(NamedTuple):
    """The result of an epoch."""

    loss: float  # its mean over the batches; over the validation rows where there are any
    weights: dict[str, torch.Tensor]  # of the best epoch so far
    last: bool


class Randomness:
    """The random numbers of one fit.

    Batches draw from `generator`; initial weights and dropout of our own layers from `layers`: both belong to the fit
    alone. Code of the user (a module, callbacks or an optimizer of their own) draws from torch's global generators.
    Where the fit `lends`, these are seeded under :meth:`lent` and continue from the state of the last use, the default
    device is the CPU, and afterwards they are restored. A lock lets one thread borrow at a time.
    """

    def __init__(self, generator: torch.Generator, device: torch.device, *, lends: bool):
        self.generator = generator
        self._seed = int(torch.randint(1 << 31, (), generator=generator, device="cpu", dtype=torch.int64))
        self.layers = torch.Generator("cpu").manual_seed(self._seed)
        self._lends = lends
        self._gpus = [device] if device.type == "cuda" else []
        self._states: list[torch.Tensor] = []

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the user's code in the block draw from the borrowed generators."""
        if not self._lends:
            yield
            return
        with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=self._gpus), _cpu_by_default():
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


def linear(n_in: int, n_out: int, generator: torch.Generator | None, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer in float32, on the CPU, with torch's initial distribution drawn from `generator`.

    Without a generator the weights are not initialised: they are to be loaded.
    """
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, device="cpu", dtype=torch.float32)
    if generator is not None:
        with torch.no_grad():
            for part in layer.parameters():
                part.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


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


def build_trunk(
    module, module_params: dict[str, Any], n_features: int, sizes: Sequence[int], generator: torch.Generator | None
) -> nn.Module:
    """Return a network of `n_features` inputs in float32, on the CPU: the default one, or the user's own.

    The default one draws its weights from `generator`. An instance is copied. A class or function is called with
    `module_params`, and with `n_features` if it has a parameter of that name: under :meth:`Randomness.lent`.
    """
    if module is None:
        return mlp(n_features, sizes, generator)
    if isinstance(module, nn.Module):
        if module_params:
            raise ValueError("net_params has module__ entries, but module is an instance. Pass its class instead.")
        trunk = copy.deepcopy(module)
    else:
        if "n_features" in inspect.signature(module).parameters:
            module_params = {"n_features": n_features, **module_params}
        trunk = module(**module_params)
    return trunk.to(device="cpu", dtype=torch.float32)


def mlp(n_features: int, sizes: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    """Return linear layers of the given sizes with ReLU, and batch normalisation after the first."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip([n_features, *sizes], sizes)):
        layers.append(linear(n_in, n_out, generator))
        if i == 0:
            layers.append(nn.BatchNorm1d(n_out, device="cpu", dtype=torch.float32))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def width_of(trunk: nn.Module, n_features: int) -> int:
    """Return the number of outputs, by a pass of one row.

    Raises
    ------
    ValueError
        If the network does not take such a row, or the output is not a matrix with one row per row of the input.
    """
    try:
        with torch.inference_mode():
            out = trunk.eval()(torch.zeros(1, n_features, device="cpu", dtype=torch.float32))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"module has to map rows of n_features_in_={n_features} columns to (n, width), but failed on one row: "
            f"{error}. Give its first layer {n_features} inputs; a class or function gets that number if it has a "
            "parameter n_features."
        ) from error
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
    device: torch.device,
    net_params: dict[str, Any],
    verbose: int = 0,
) -> Iterator[Epoch]:
    """Train `module` in place with skorch, an epoch at a time; it ends with the weights of the best epoch.

    An epoch is `n_batches` batches of `batch_size` random rows at most, none of them twice. `make_batch` turns the
    indices of rows into inputs and target; `objective` turns outputs and target into the loss. Adam, unless
    `net_params` names another optimizer. It ends after `n_epochs`, after the epoch at which skorch's EarlyStopping asks
    for it, or when the generator is closed. However it ends, by an error or an interrupt too, `on_train_end` of the
    callbacks is called. A KeyboardInterrupt that does not come from EarlyStopping is raised, as scikit-learn does.

    Raises
    ------
    ValueError
        If the loss is no longer finite.
    """
    settings: dict[str, Any] = {"optimizer__weight_decay": weight_decay, "train_split": None}
    if "optimizer" not in net_params:
        settings |= {"optimizer": torch.optim.Adam, "optimizer__fused": True}
    own = {"lr": learning_rate, "batch_size": batch_size, "device": str(device), "max_epochs": n_epochs}
    net = _Net(module, nn.Identity, **{**settings, **net_params, **own, "verbose": int(verbose)})
    net.objective, net.make_batch, net.n_batches, net.generator = objective, make_batch, n_batches, randomness.generator
    with randomness.lent():
        net.initialize()
        net.notify("on_train_begin", X=None, y=None)
    best = weights_of(module)
    with _ending(net, randomness):
        try:
            with randomness.lent():
                fitted, held_out = net.get_split_datasets(np.arange(n_rows))
                batches = net.get_iterator(fitted, training=True)
                others = None if held_out is None else net.get_iterator(held_out)
            lowest = float("inf")
            for epoch in range(1, n_epochs + 1):
                with randomness.lent():
                    net.notify("on_epoch_begin", dataset_train=fitted, dataset_valid=held_out)
                    net.run_single_epoch(batches, training=True, prefix="train", step_fn=net.train_step)
                    net.run_single_epoch(others, training=False, prefix="valid", step_fn=net.validation_step)
                    stopped = _asks_to_stop(net, dataset_train=fitted, dataset_valid=held_out)
                loss = net.history[-1, "train_loss" if others is None else "valid_loss"]
                if not np.isfinite(loss):
                    raise ValueError(
                        f"The loss became {loss} in training. Lower the learning rate, or scale the features."
                    )
                if loss < lowest:
                    lowest, best = loss, weights_of(module)
                yield Epoch(loss, best, stopped or epoch == n_epochs)
                if stopped:
                    break
        finally:
            module.load_state_dict(best)


@contextmanager
def _ending(net, randomness: Randomness) -> Iterator[None]:
    """Call `on_train_end` of the callbacks after the block; where an error ends it, that error is the one raised."""
    try:
        yield
    except GeneratorExit:
        pass  # the generator was closed: a plain end
    except BaseException as error:
        try:
            with randomness.lent():
                net.notify("on_train_end", X=None, y=None)
        except Exception as second:
            error.add_note(f"Afterwards on_train_end of a callback failed: {second!r}")
        raise
    with randomness.lent():
        net.notify("on_train_end", X=None, y=None)


def _asks_to_stop(net, **kwargs) -> bool:
    """Call `on_epoch_end` of the callbacks; True where an EarlyStopping is out of patience.

    It says so by a KeyboardInterrupt. Any other one is the user's.
    """
    try:
        net.notify("on_epoch_end", **kwargs)
    except KeyboardInterrupt:
        if any(isinstance(cb, EarlyStopping) and cb.misses_ == cb.patience for _, cb in net.callbacks_):
            return True
        raise
    return False


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
