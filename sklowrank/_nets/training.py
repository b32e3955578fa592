"""Seeded training with skorch, an epoch at a time; rules that change a network while it trains."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from .._core.iterate import Step
from .architecture import Edit, Expansion, replay
from .batches import Batches, Drawn, Walk
from .layers import as_tensor, kind_and_shape
from .randomness import Randomness

_DIVERGED = "{} in training. Lower learning_rate, or scale the features."


class Training(NamedTuple):
    """How a network is trained; the names are those of estimators' parameters."""

    max_iter: int  # epochs
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    tol: float = 0.0
    n_iter_no_change: int = 10
    early_stopping: bool = False  # on rows that are held out; the best epoch is kept
    validation_fraction: float = 0.1
    net_params: dict[str, Any] = {}  # settings of skorch
    verbose: int = 0


class Snapshot(NamedTuple):
    """A network at some epoch: its weights, and what had become of its layers."""

    edits: tuple[Edit, ...]
    weights: dict[str, torch.Tensor]
    optimizer: dict[int, dict[str, Any]]  # state by the place of a parameter; empty where it is not kept
    report: dict[str, Any]  # of the rule


class Rule(BaseEstimator, Callback):
    """A way to train: it changes layers or gradients in skorch's own hooks.

    The same object works as `training` of our estimators, which convert the network before an optimizer exists, and as
    the last callback of any skorch net, where layers are converted in `on_train_begin` and parameters of the optimizer
    exchanged in place. A subclass has parameters as any estimator, and finds its layers by their paths; attributes that
    it sets while it trains end with an underscore. Random numbers come from `generator_`, on the CPU, which belongs to
    the training and is there when `convert` is called.
    """

    generator_: torch.Generator
    former_: dict[str, Any] = {}  # report of the former training, where an estimator of this package continues it

    def convert(self, module: nn.Module) -> list[Edit]:
        """Replace layers before the training; those that have been finished before are taken up again."""
        return []

    def finish(self, module: nn.Module) -> list[Edit]:
        """Replace layers after the training, however it has ended."""
        return []

    def report(self) -> dict[str, Any]:
        """Return what the training has found, by name."""
        return {}

    def expansion(self) -> Expansion | None:
        """Return how the trained weights follow from those at the start of the training and fewer numbers; or None."""
        return None

    def stored(
        self, weights: dict[str, torch.Tensor], report: dict[str, Any], *, expands: bool
    ) -> dict[str, torch.Tensor | np.ndarray]:
        """Return what is to be stored of the weights and the report of a snapshot.

        Where it `expands`, these are the numbers of the expansion, and weights that do not follow from them.
        """
        return dict(weights)

    def hand_gradient_on(self, net, **kwargs) -> None:
        """Call `on_grad_computed` of the net and of callbacks before the rule for a gradient that it has changed."""
        before = takewhile(lambda callback: callback is not self, (callback for _, callback in net.callbacks_))
        for callback in (net, *before):
            callback.on_grad_computed(net, **kwargs)

    def on_train_begin(self, net, **kwargs):
        """Convert the module of a skorch net."""
        if not isinstance(net, _Net):
            # Skorch draws from torch's global generator, and so does what is part of its net.
            seed = torch.randint(1 << 31, (), device="cpu", dtype=torch.int64)
            self.generator_ = torch.Generator("cpu").manual_seed(int(seed))
            with exchanging(net):
                self.convert(net.module_)

    def on_train_end(self, net, **kwargs):
        """Finish the module of a skorch net."""
        if not isinstance(net, _Net):
            with exchanging(net):
                self.finish(net.module_)


@contextmanager
def exchanging(net) -> Iterator[None]:
    """Let a rule replace layers or parameters in the block, and give the optimizer the new ones.

    The old ones and their state go, the new ones join the group of the parameter that they replace. The optimizer stays
    the same object, so schedulers that hold it go on.
    """
    before = dict(net.module_.named_parameters())
    yield
    after = dict(net.module_.named_parameters())
    kept = {id(parameter) for parameter in after.values()}
    known = {id(parameter) for parameter in before.values()}
    gone = {name: parameter for name, parameter in before.items() if id(parameter) not in kept}
    groups = net.optimizer_.param_groups
    place = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
    homes = {name: place[id(p)] for name, p in gone.items() if id(p) in place}
    for group in groups:
        group["params"][:] = [p for p in group["params"] if id(p) in kept]  # LBFGS holds the list itself
    for parameter in gone.values():
        net.optimizer_.state.pop(parameter, None)
    for name, parameter in after.items():
        if id(parameter) not in known and homes:
            home = max(homes, key=lambda former: (_shared_path(name, former), former.endswith("weight")))
            groups[homes[home]]["params"].append(parameter)


def _shared_path(a, b):
    """Return how many parts of two names are the same, from the first."""
    pairs = list(zip(a.split("."), b.split(".")))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))


def train(
    module: nn.Module,
    batches: Batches,
    loss: Callable[[Any, Any], torch.Tensor],
    training: Training,
    *,
    randomness: Randomness,
    device: torch.device,
    rule: Rule | None = None,
    edits: list[Edit] | None = None,
    optimizer: dict[int, dict[str, Any]] | None = None,
    keep_best: bool = True,
    keep_optimizer: bool = False,
) -> Iterator[Step]:
    """Train `module` in place, an epoch at a time; each yields a Step with the snapshot that is to be kept.

    `loss` takes outputs and target. Adam, unless `net_params` names another optimizer; `optimizer` is the state that it
    begins with. The gap is the largest gain of the last `n_iter_no_change` epochs, where the gain of an epoch is the
    share by which its loss is below the lowest one before; it is infinite with `tol` 0 and no rows held out. It ends
    after `max_iter` epochs, after the epoch at which skorch's EarlyStopping asks for it, or when the generator is
    closed. However it ends, by an error or an interrupt too, the module then has the weights of the snapshot, the rule
    has finished it, and `on_train_end` of the callbacks has been called. `edits` lists the layers that rules have
    replaced; it is kept up to date. A KeyboardInterrupt that does not come from EarlyStopping is raised, as
    scikit-learn does.

    Raises
    ------
    ValueError
        If the loss or the weights are no longer finite.
    """
    edits = [] if edits is None else edits
    with randomness.scope():
        if rule is not None:
            rule.generator_ = randomness.generator
            edits += rule.convert(module)
        net = _net(module, batches, loss, training, randomness, device, rule)
    snapshot = _snapshot(net, edits, rule, keep_optimizer)
    with _ending(net, randomness, rule, edits):
        try:
            with randomness.scope():
                net.notify("on_train_begin", X=None, y=None)
                _load_state(net, optimizer)
                fitted, held_out = net.get_split_datasets(np.arange(batches.n_rows))
                walks = net.get_iterator(fitted, training=True)
                others = None if held_out is None else net.get_iterator(held_out)
            lowest, gains = math.inf, list[float]()
            for epoch in range(1, training.max_iter + 1):
                with randomness.scope():
                    net.notify("on_epoch_begin", dataset_train=fitted, dataset_valid=held_out)
                    try:
                        net.run_single_epoch(walks, training=True, prefix="train", step_fn=net.train_step)
                        net.run_single_epoch(others, training=False, prefix="valid", step_fn=net.validation_step)
                    except torch.linalg.LinAlgError as error:  # a decomposition of outputs that are NaN
                        raise ValueError(_DIVERGED.format("The loss could not be computed")) from error
                    stopped = _asks_to_stop(net, dataset_train=fitted, dataset_valid=held_out)
                value = net.history[-1, "train_loss" if held_out is None else "valid_loss"]
                if not np.isfinite(value):
                    raise ValueError(_DIVERGED.format(f"The loss became {value}"))
                if not all(bool(weight.isfinite().all()) for weight in module.parameters()):  # by the last step
                    raise ValueError(_DIVERGED.format("Weights became NaN or infinite"))
                if not keep_best or value < lowest:
                    snapshot = _snapshot(net, edits, rule, keep_optimizer)
                gains.append((lowest - value) / max(abs(lowest), np.finfo(np.float64).tiny) if gains else math.inf)
                lowest = min(lowest, value)
                yield Step(snapshot, _gap(gains, training, held_out), value)
                if stopped:
                    break
        finally:
            if edits:
                replay(module, snapshot.edits)
            module.load_state_dict(snapshot.weights)


def _net(module, batches, loss, training, randomness, device, rule):
    """Return the initialised net of skorch; the rule comes last of the callbacks."""
    settings: dict[str, Any] = {"optimizer__weight_decay": training.weight_decay, "train_split": None}
    if "optimizer" not in training.net_params:
        settings |= {"optimizer": torch.optim.Adam, "optimizer__fused": True}
    own = {
        "lr": training.learning_rate,
        "batch_size": training.batch_size,
        "device": str(device),
        "max_epochs": training.max_iter,
        "verbose": int(training.verbose),
    }
    if rule is not None:
        own["callbacks"] = [*(training.net_params.get("callbacks") or []), ("training_rule", rule)]
    net = _Net(module, getattr(loss, "criterion", nn.Identity), **{**settings, **training.net_params, **own})
    net.objective, net.batches, net.generator = loss, batches, randomness.generator
    return net.initialize()


def _snapshot(net, edits, rule, keep_optimizer):
    state = {}
    if keep_optimizer:
        states = [net.optimizer_.state.get(parameter, {}) for parameter in net.module_.parameters()]
        state = {i: {k: v.clone() if torch.is_tensor(v) else v for k, v in s.items()} for i, s in enumerate(states)}
    report = {} if rule is None else rule.report()
    return Snapshot(current_edits(net.module_, edits), weights_of(net.module_), state, report)


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def current_edits(module: nn.Module, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits of a module with the shapes that the layers have now, one of each path."""
    paths = dict.fromkeys(edit.path for edit in edits)
    return tuple(Edit(path, *kind_and_shape(module.get_submodule(path))) for path in paths)


def _load_state(net, state):
    """Give the optimizer a state by the places of the module's parameters, where their shapes are the same."""
    for parameter, values in zip(net.module_.parameters(), (state or {}).values()):
        values = {name: as_tensor(v) for name, v in values.items()}
        moments = {name: v for name, v in values.items() if isinstance(v, torch.Tensor) and v.ndim}
        ndim = parameter.ndim  # before it there may be an axis of several gradients
        if values and all(moment.shape[moment.ndim - ndim :] == parameter.shape for moment in moments.values()):
            net.optimizer_.state[parameter] = {
                name: v.to(parameter.device, parameter.dtype, copy=True) if isinstance(v, torch.Tensor) else v
                for name, v in values.items()
            }


def _gap(gains, training, held_out):
    """Return the largest gain in the last epochs: that of an epoch is by which share its loss is below the lowest."""
    if not training.tol and held_out is None:
        return 0.0 if len(gains) == training.max_iter else math.inf
    return math.inf if len(gains) <= training.n_iter_no_change else max(gains[-training.n_iter_no_change :])


@contextmanager
def _ending(net, randomness: Randomness, rule, edits) -> Iterator[None]:
    """Let the rule finish and call `on_train_end` after the block; an error that has ended it is the one raised."""
    reason = None
    try:
        yield
    except GeneratorExit:
        pass  # the generator was closed: a plain end
    except BaseException as error:
        reason = error
    try:
        with randomness.scope():
            try:
                if rule is not None:
                    with exchanging(net):
                        edits.extend(rule.finish(net.module_))
                    edits[:] = current_edits(net.module_, edits)
            finally:
                net.notify("on_train_end", X=None, y=None)
    except Exception as second:
        if reason is None:
            raise
        reason.add_note(f"Afterwards on_train_end of a callback failed: {second!r}")
    if reason is not None:
        raise reason


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

    def initialize_callbacks(self):
        """Note which callbacks have something to do in a batch: asking all of them takes as long as a small network."""
        initialized = super().initialize_callbacks()
        self.in_batches = {
            hook: [cb for _, cb in self.callbacks_ if getattr(type(cb), hook) is not getattr(Callback, hook)]
            for hook in ("on_batch_begin", "on_batch_end", "on_grad_computed")
        }
        return initialized

    def notify(self, method_name, **cb_kwargs):
        if method_name not in self.in_batches:
            super().notify(method_name, **cb_kwargs)
            return
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self.in_batches[method_name]:
            getattr(callback, method_name)(self, **cb_kwargs)

    def _zero_grad_optimizer(self, set_to_none=None):
        for group in self.optimizer_.param_groups:  # what `zero_grad` does, at a fifth of the time
            for parameter in group["params"]:
                parameter.grad = None

    def row_weights(self, target):
        """Return the weights (n,) of the rows of a batch in the loss; None where they are equal."""
        return self.objective.row_weights(target) if hasattr(self.objective, "row_weights") else None

    @property
    def _default_callbacks(self):
        """Leave out the callback that prints a table: it formats its lines even where they are not shown."""
        return [(name, callback) for name, callback in super()._default_callbacks if name != "print_log"]

    def get_split_datasets(self, X, y=None, **fit_params):
        held_out = self.batches.held_out
        if held_out is None:
            return super().get_split_datasets(X, y, **fit_params)
        return np.setdiff1d(X, held_out.numpy()), held_out.numpy()

    def get_iterator(self, dataset, training=False):
        if training and self.batches.drawn is not None:
            return Drawn(self.batches, self.generator)
        rows = dataset
        if not isinstance(dataset, np.ndarray):
            rows = np.asarray(getattr(dataset, "indices", range(len(dataset))))
        return Walk(torch.from_numpy(rows), self.batch_size, self.batches, self.generator)
