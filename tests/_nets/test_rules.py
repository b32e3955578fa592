"""A rule that changes layers: through our own training, and as a callback of any skorch net."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from sklowrank._nets.architecture import Architecture, build, edited, restore
from sklowrank._nets.batches import Batches
from sklowrank._nets.layers import ThinLinear
from sklowrank._nets.randomness import Randomness
from sklowrank._nets.training import Rule, Training, exchanging, train

CPU = torch.device("cpu")


class Truncation(Rule):
    """Makes the linear layers thin, lowers their rank after some batches, and multiplies them out at the end."""

    def __init__(self, rank=4, every=2, multiply=False):
        self.rank = rank
        self.every = every
        self.multiply = multiply

    def convert(self, module):
        self.batches_, self.ends_ = 0, 0
        paths = [path for path, layer in module.named_modules() if type(layer) is nn.Linear]
        return [edited(module, path, ThinLinear.nearest_to(module.get_submodule(path), self.rank)) for path in paths]

    def on_batch_end(self, net, training, **kwargs):
        self.batches_ += training
        if training and self.batches_ % self.every == 0:
            with exchanging(net):
                for path, layer in thin_layers(net.module_):
                    edited(net.module_, path, ThinLinear.nearest_to(layer, max(1, len(layer.down) - 1)))

    def finish(self, module):
        self.ends_ += 1
        self.ranks_ = [len(layer.down) for _, layer in thin_layers(module)]
        if not self.multiply:
            return []
        return [edited(module, path, layer.multiplied_out()) for path, layer in thin_layers(module)]

    def report(self):
        return {"ranks": getattr(self, "ranks_", None)}


def thin_layers(module):
    return [(path, layer) for path, layer in module.named_modules() if isinstance(layer, ThinLinear)]


def table(n=64):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, 5, generator=generator)
    return X, X[:, :1] - X[:, 1:2] ** 2


ARCHITECTURE = Architecture(None, {"hidden_layer_sizes": [8, 8]}, (5,), 1)


def training(rule, *, loss=None, **options):
    """A training by our own door; the module, the account of its edits, and its steps."""
    X, y = table()
    randomness, edits = Randomness(torch.Generator().manual_seed(0), CPU, seeds_global=True), []
    module = build(ARCHITECTURE, randomness.layers)
    steps = train(
        module,
        Batches(lambda rows: (X[rows], y[rows]), len(X)),
        loss or (lambda out, target: (out - target).square().mean()),
        Training(**{"max_iter": 3, "batch_size": 16, "learning_rate": 0.01, **options}),
        rule=rule,
        edits=edits,
        randomness=randomness,
        device=CPU,
        keep_best=False,
    )
    return module, edits, steps


def test_new_layers_are_trained_and_truncated_and_what_is_left_is_built_again():
    rule = Truncation()
    module, edits, steps = training(rule, max_iter=6)
    losses = [step.loss for step in steps]
    assert losses[-1] < 0.9 * losses[0]
    assert rule.batches_ == 24
    assert rule.report() == {"ranks": [1, 1, 1]}
    again = restore(ARCHITECTURE._replace(edits=tuple(edits)), module.state_dict())
    assert torch.equal(again(table()[0]), module(table()[0]))
    assert [edit.shape[2] for edit in edits] == [1, 1, 1]


def test_layers_are_converted_before_the_optimizer_exists():
    seen = []

    class Watch(Callback):
        def on_train_begin(self, net, **kwargs):
            known = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
            seen.append(known == {id(p) for p in net.module_.parameters()} and bool(thin_layers(net.module_)))

    list(training(Truncation(), net_params={"callbacks": [Watch()]})[2])
    assert seen == [True]


def test_a_snapshot_comes_back_after_shapes_have_changed():
    module, _, steps = training(Truncation(every=1), max_iter=1)
    architecture = build(ARCHITECTURE, None)
    snapshot = next(steps).state  # the last truncations are in it
    steps.close()
    early = restore(ARCHITECTURE._replace(edits=snapshot.edits), snapshot.weights)
    assert torch.equal(early(table()[0]), module.eval()(table()[0]))
    assert type(architecture[0]) is nn.Linear


def test_the_best_epoch_has_the_ranks_it_had():
    rising = LRScheduler(policy="LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 1 else 1e3)
    X, y = table()
    randomness, rule, edits = (
        Randomness(torch.Generator().manual_seed(0), CPU, seeds_global=True),
        Truncation(every=4),
        [],
    )
    module = build(ARCHITECTURE, randomness.layers)
    steps = train(
        module,
        Batches(lambda rows: (X[rows], y[rows]), len(X)),
        lambda out, target: (out - target).square().mean(),
        Training(2, 16, 0.01, net_params={"callbacks": [rising]}),
        rule=rule,
        edits=edits,
        randomness=randomness,
        device=CPU,
    )
    assert len(list(steps)) == 2
    assert rule.ranks_ == [3, 3, 1]  # of the first epoch; after the second they would be one less
    assert [edit.shape[2] for edit in edits] == [3, 3, 1]


@pytest.mark.parametrize("multiply", [False, True])
@pytest.mark.parametrize("way", ["max_iter", "closed", "early stopping", "error", "interrupt"])
def test_a_rule_finishes_once_however_the_training_ends(way, multiply):
    class Break(Callback):
        def on_epoch_end(self, net, **kwargs):
            if way in ("error", "interrupt"):
                raise RuntimeError("no more") if way == "error" else KeyboardInterrupt

    callbacks, rule = [Break()], Truncation(multiply=multiply)
    if way == "early stopping":
        callbacks.append(EarlyStopping("train_loss", patience=1, threshold=9.0, threshold_mode="abs"))
    module, edits, steps = training(rule, max_iter=9, net_params={"callbacks": callbacks})
    if way in ("error", "interrupt"):
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            list(steps)
    elif way == "closed":
        next(steps)
        steps.close()
    else:
        list(steps)
    assert rule.ends_ == 1
    assert bool(thin_layers(module)) is not multiply
    assert {edit.kind for edit in edits} == {"linear" if multiply else "thin"}


def skorch_net(rule, *callbacks, **params):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    params = {
        "lr": 0.01,
        "max_epochs": 4,
        "batch_size": 16,
        "optimizer": torch.optim.Adam,
        "train_split": None,
        **params,
    }
    return NeuralNetRegressor(module, callbacks=[*named, ("rank", rule)], verbose=0, **params)


@pytest.fixture
def _own_seed():
    with torch.random.fork_rng():
        yield


@pytest.mark.usefixtures("_own_seed")
def test_any_skorch_net_takes_the_rule_as_a_callback():
    X, y = (part.numpy() for part in table())
    net = skorch_net(Truncation(every=5), max_epochs=30).fit(X, y)
    losses = net.history[:, "train_loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert [path for path, _ in thin_layers(net.module_)] == ["0", "2"]
    known = [p for group in net.optimizer_.param_groups for p in group["params"]]
    assert {id(p) for p in known} == {id(p) for p in net.module_.parameters()}
    assert len(known) == 6
    assert dict(net.callbacks_)["rank"].ends_ == 1
    finished = skorch_net(Truncation(multiply=True)).fit(X, y)
    assert not thin_layers(finished.module_)
    before = finished.predict(X)
    finished.partial_fit(X, y)  # takes the layers up again
    assert not np.array_equal(finished.predict(X), before)


@pytest.mark.usefixtures("_own_seed")
def test_a_schedule_that_began_before_goes_on_and_groups_keep_their_settings():
    X, y = (part.numpy() for part in table())
    rates = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            rates.append([group["lr"] for group in net.optimizer_.param_groups])

    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    net = skorch_net(Truncation(), schedule, Watch(), optimizer__param_groups=[("2.*", {"lr": 0.2})])
    net.fit(X, y)
    assert np.allclose(np.array(rates)[:, 0], 0.2 * 0.5 ** np.arange(1, 5))
    last = [id(p) for p in net.module_[2].parameters()]
    assert [id(p) for p in net.optimizer_.param_groups[0]["params"]] == last


def test_a_rule_has_parameters_as_an_estimator():
    rule = clone(Truncation(rank=3))
    assert repr(rule) == "Truncation(rank=3)"
    net = skorch_net(rule).set_params(callbacks__rank__rank=2)
    net.initialize()
    assert dict(net.callbacks_)["rank"].rank == 2
