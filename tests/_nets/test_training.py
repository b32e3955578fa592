"""The bridge to skorch: whose generators are used, which weights are kept, what the user may set."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from sklowrank._core.nets import (
    Randomness,
    as_numpy,
    build_trunk,
    linear,
    load_weights,
    mlp,
    split_params,
    train,
    width_of,
)

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def lending(seed=0):
    """Random numbers of a fit that runs code of the user."""
    return Randomness(seeded(seed), CPU, lends=True)


def problem(n_rows=64, seed=0):
    """A linear regression: rows, targets, a network that is right for it."""
    X = torch.randn(n_rows, 3, generator=seeded(seed))
    net = nn.Linear(3, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)  # nothing is left to the global generator
    return X, X @ torch.tensor([[1.0], [-2.0], [0.5]]), net


def run(net, X, y, **options):
    return list(steps(net, X, y, **options))


def steps(net, X, y, *, randomness=None, **options):
    settings = {
        "objective": lambda out, target: (out - target).square().mean(),
        "make_batch": lambda rows: (X[rows], y[rows]),
        "n_rows": len(X),
        "n_epochs": 20,
        "n_batches": 100,
        "batch_size": 16,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "randomness": randomness or lending(),
        "device": CPU,
        "net_params": {},
    }
    return train(net, **{**settings, **options})


def test_training_finds_the_answer_and_yields_an_epoch_at_a_time():
    X, y, net = problem()
    epochs = run(net, X, y, n_epochs=60)
    assert [epoch.last for epoch in epochs] == [False] * 59 + [True]
    assert epochs[-1].loss < 1e-3 * epochs[0].loss
    torch.testing.assert_close(net.weight, torch.tensor([[1.0, -2.0, 0.5]]), rtol=0.02, atol=0.02)


def test_best_weights_are_kept():
    X, y, net = problem()
    rising = LRScheduler(
        policy="LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 15 else 300.0
    )  # then it is thrown off
    epochs = run(net, X, y, n_epochs=18, net_params={"callbacks": [rising]})
    losses = [epoch.loss for epoch in epochs]
    best = int(np.argmin(losses))
    assert losses[best] < losses[-1]
    for name, value in net.state_dict().items():
        assert torch.equal(value, epochs[best].weights[name])
        assert torch.equal(value, epochs[-1].weights[name])


def test_batches_hold_different_rows_of_equal_number():
    X, y, net = problem(50)
    seen = []

    def make_batch(rows):
        seen.append(rows)
        return X[rows], y[rows]

    run(net, X, y, n_epochs=2, make_batch=make_batch)
    assert [len(rows) for rows in seen] == [16] * 6  # 50 rows: three batches of 16, two left out
    assert len(torch.cat(seen[:3]).unique()) == 48
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))
    seen.clear()
    run(net, X, y, n_epochs=2, n_batches=1, make_batch=make_batch)
    assert len(seen) == 2


def test_the_users_generators_are_untouched_and_a_seed_decides():
    X, y, _ = problem()

    def weights(seed, disturb):
        torch.manual_seed(disturb)
        randomness = lending(seed)
        with randomness.lent():
            net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        before = torch.get_rng_state()
        run(net, X, y, randomness=randomness)
        assert torch.equal(before, torch.get_rng_state())
        return torch.cat([p.flatten() for p in net.parameters()]).detach()

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(3, 1))


def test_lent_generators_go_on_where_they_were():
    randomness = lending()
    with randomness.lent():
        first = torch.rand(3)
    torch.rand(5)
    with randomness.lent():
        second = torch.rand(3)
    with lending().lent():
        both = torch.rand(3), torch.rand(3)
    assert torch.equal(first, both[0])
    assert torch.equal(second, both[1])


def test_lent_generators_make_the_cpu_the_default_device():
    with torch.device("meta"), lending().lent():
        assert torch.zeros(1).device == CPU


class Log(Callback):
    """A user's callback of skorch."""

    def __init__(self):
        self.calls = []

    def on_train_begin(self, net, **kwargs):
        self.calls.append("begin")

    def on_epoch_end(self, net, **kwargs):
        self.calls.append(net.history[-1, "train_loss"])

    def on_train_end(self, net, **kwargs):
        self.calls.append("end")


def test_the_users_callbacks_optimizer_and_schedule_take_part():
    X, y, net = problem()
    log = Log()
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.0)  # the first epoch is the only one that learns
    params = {"callbacks": [log, schedule], "optimizer": torch.optim.SGD, "optimizer__momentum": 0.5}
    epochs = run(net, X, y, n_epochs=4, net_params=params)
    assert log.calls[0] == "begin"
    assert log.calls[-1] == "end"
    assert log.calls[1:-1] == [epoch.loss for epoch in epochs]
    assert abs(epochs[2].loss - epochs[3].loss) < 1e-5


def test_early_stopping_on_held_out_rows():
    X, y, net = problem()
    params = {"callbacks": [EarlyStopping(patience=2)], "train_split": ValidSplit(4)}
    epochs = run(net, X, y, learning_rate=0.0, n_epochs=50, net_params=params)
    assert len(epochs) == 3  # the first is the best, two more in vain
    assert [epoch.last for epoch in epochs] == [False, False, True]


def test_the_loss_of_held_out_rows_decides():
    X, y, net = problem()
    seen = []

    def objective(out, target):
        seen.append((net.training, len(target)))
        return (out - target).square().mean()

    run(net, X, y, objective=objective, n_epochs=2, net_params={"train_split": ValidSplit(4)})
    assert seen == 2 * [*3 * [(True, 16)], (False, 16)]


class Break(Callback):
    """A callback of the user in which an error arises, at a moment to be named."""

    def __init__(self, moment, error):
        self.moment, self.error = moment, error

    def on_batch_end(self, net, **kwargs):
        self.at("batch")

    def on_epoch_end(self, net, **kwargs):
        self.at("epoch")

    def on_train_end(self, net, **kwargs):
        self.at("end")

    def at(self, moment):
        if moment == self.moment:
            raise self.error


@pytest.mark.parametrize("way", ["n_epochs", "closed", "early stopping", "batch", "epoch", "loss"])
def test_the_end_of_training_is_announced_once_however_it_ends(way):
    X, y, net = problem()
    log, stop, options = Log(), [], {}
    if way == "early stopping":
        stop, options = [EarlyStopping("train_loss", patience=2)], {"learning_rate": 0.0}
    elif way in ("batch", "epoch"):
        stop = [Break(way, RuntimeError("no more"))]
    elif way == "loss":
        options = {"objective": lambda out, target: out.mean() * float("nan")}
    epochs = steps(net, X, y, n_epochs=5, net_params={"callbacks": [log, *stop]}, **options)
    if way == "closed":
        next(epochs)
        epochs.close()
    elif way in ("batch", "epoch", "loss"):
        with pytest.raises((RuntimeError, ValueError)):
            list(epochs)
    else:
        assert len(list(epochs)) == (3 if way == "early stopping" else 5)
    assert log.calls.count("end") == 1
    assert log.calls[-1] == "end"


@pytest.mark.parametrize("moment", ["batch", "epoch"])
def test_an_interrupt_in_a_callback_is_raised(moment):
    X, y, net = problem()
    with pytest.raises(KeyboardInterrupt):
        run(net, X, y, net_params={"callbacks": [Break(moment, KeyboardInterrupt())]})


def test_a_failing_end_does_not_hide_the_error_before_it():
    X, y, net = problem()
    callbacks = [Break("epoch", KeyboardInterrupt()), ("end", Break("end", KeyError("lost")))]
    with pytest.raises(KeyboardInterrupt) as caught:
        run(net, X, y, net_params={"callbacks": callbacks})
    assert "on_train_end of a callback failed: KeyError('lost')" in caught.value.__notes__[0]
    with pytest.raises(KeyError, match="lost"):
        run(net, X, y, n_epochs=1, net_params={"callbacks": callbacks[1:]})


@pytest.mark.parametrize("verbose", [0, 1])
def test_callbacks_print_where_the_estimator_does(verbose, capsys):
    X, y, net = problem()
    params = {"callbacks": [EarlyStopping("train_loss", patience=1)]}
    run(net, X, y, learning_rate=0.0, net_params=params, verbose=verbose)
    assert ("Stopping since" in capsys.readouterr().out) is bool(verbose)


def test_layers_of_ours_draw_from_the_generator_of_the_fit_alone():
    before = torch.get_rng_state()
    first, second = linear(300, 5, seeded()), linear(300, 5, seeded())
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(before, torch.get_rng_state())
    assert first.weight.std().item() == pytest.approx(300**-0.5 / 3**0.5, rel=0.05)  # as torch initialises
    assert first.weight.abs().max() <= 300**-0.5
    assert all(p.requires_grad for p in first.parameters())
    own = Randomness(seeded(), CPU, lends=False)
    with own.lent():
        torch.rand(1)
    assert not torch.equal(before, torch.get_rng_state())  # nothing was borrowed, so nothing was given back


def test_one_thread_borrows_at_a_time():
    def drawn(seed):
        randomness, draws = lending(seed), []
        for _ in range(30):
            with randomness.lent():
                draws.append(torch.rand(50))
                time.sleep(0)
                draws.append(torch.rand(50))
        return torch.cat(draws)

    alone, state = [drawn(seed) for seed in range(4)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(drawn, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside))
    assert torch.equal(state, torch.get_rng_state())


def test_a_loss_that_is_not_finite_names_the_cure():
    X, y, net = problem()
    with pytest.raises(ValueError, match=r"loss became nan .*Lower the learning rate"):
        run(net, X, y, objective=lambda out, target: out.mean() * float("nan"))


@pytest.mark.parametrize("name", ["batch_size", "lr", "device", "iterator_train__shuffle", "criterion", "max_epochs"])
def test_what_the_estimator_decides_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*cannot be set"):
        split_params({name: 1})


def test_arguments_of_the_module_are_told_from_those_of_skorch():
    module, rest = split_params({"module__dropout": 0.1, "optimizer__betas": (0.8, 0.9)})
    assert module == {"dropout": 0.1}
    assert rest == {"optimizer__betas": (0.8, 0.9)}
    assert split_params(None) == ({}, {})


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self, n_features, width=7):
        super().__init__()
        self.layer = nn.Linear(n_features, width)

    def forward(self, x):
        return self.layer(x)


def test_networks_of_ones_own():
    assert width_of(build_trunk(Own, {}, 3, [5], seeded()), 3) == 7
    assert width_of(build_trunk(Own, {"width": 4}, 3, [5], seeded()), 3) == 4
    assert width_of(build_trunk(lambda: nn.Linear(3, 2), {}, 3, [5], seeded()), 3) == 2
    instance = Own(3)
    trunk = build_trunk(instance, {}, 3, [5], seeded())
    assert trunk is not instance
    assert torch.equal(trunk.layer.weight, instance.layer.weight)
    with pytest.raises(ValueError, match="module is an instance"):
        build_trunk(instance, {"width": 4}, 3, [5], seeded())
    with pytest.raises(ValueError, match=r"has to map \(n, 3\) to \(n, width\); one row gave \(1, 1, 2\)"):
        width_of(nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (1, 2))), 3)
    for wrong in (nn.Linear(7, 2), nn.Conv2d(1, 2, 3), nn.Module(), nn.Embedding(9, 2)):
        with pytest.raises(ValueError, match=r"module has to map rows of n_features_in_=3 columns to .* 3 inputs"):
            width_of(wrong, 3)


def test_the_default_network_is_float32_whatever_the_default_is():
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in mlp(3, [5, 4], seeded()).parameters()} == {torch.float32}
        assert {p.dtype for p in build_trunk(Own, {}, 3, [], seeded()).parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(previous)
    assert width_of(mlp(3, [5, 4], seeded()), 3) == 4


def test_weights_survive_as_arrays():
    net, other = mlp(3, [5, 4], seeded()), mlp(3, [5, 4], seeded())
    X = torch.randn(6, 3, generator=seeded())
    net(X)  # batch normalisation remembers
    stored = as_numpy(net.state_dict())
    assert all(type(value) is np.ndarray for value in stored.values())
    there = load_weights(other, stored, CPU)
    assert not there.training
    assert torch.equal(there(X), net.eval()(X))
    stored["0.weight"][:] = 0
    assert there[0].weight.abs().sum() > 0
