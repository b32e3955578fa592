"""Training with skorch: what the user may set, which weights are kept, how it ends."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from sklowrank._nets.batches import Batches
from sklowrank._nets.randomness import Randomness
from sklowrank._nets.training import Training, train

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def randomness_of(seed=0):
    """Random numbers of a fit that runs code of the user."""
    return Randomness(seeded(seed), CPU, seeds_global=True)


def problem(n_rows=64, seed=0):
    """A linear regression: rows, targets, a network that is right for it."""
    X = torch.randn(n_rows, 3, generator=seeded(seed))
    net = nn.Linear(3, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)  # nothing is left to the global generator
    return X, X @ torch.tensor([[1.0], [-2.0], [0.5]]), net


def run(net, X, y, **options):
    return list(steps(net, X, y, **options))


def steps(net, X, y, *, loss=None, make=None, n_batches=None, held_out=None, whole=False, **options):
    batches = Batches(make or (lambda rows: (X[rows], y[rows])), len(X), held_out, n_batches, whole)
    own = {name: options.pop(name) for name in list(options) if name not in Training._fields}
    training = Training(**{"max_iter": 20, "batch_size": 16, "learning_rate": 0.1, **options})
    own = {"randomness": randomness_of(), "device": CPU, **own}
    return train(net, batches, loss or (lambda out, target: (out - target).square().mean()), training, **own)


def test_training_finds_the_answer_and_yields_an_epoch_at_a_time():
    X, y, net = problem()
    epochs = run(net, X, y, max_iter=60)
    assert [epoch.gap for epoch in epochs] == [np.inf] * 59 + [0.0]  # without a tolerance
    assert epochs[-1].loss < 1e-3 * epochs[0].loss
    torch.testing.assert_close(net.weight, torch.tensor([[1.0, -2.0, 0.5]]), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("n_rows", "sizes"), [(32, [16, 16]), (33, [16, 17]), (34, [16, 16, 2]), (17, [17]), (5, [5])])
def test_no_batch_of_a_whole_epoch_has_a_single_row(n_rows, sizes):
    X, y, net = problem()
    seen = []

    def make(rows):
        seen.append(rows)
        return X[rows], y[rows]

    run(net, X[:n_rows], y[:n_rows], make=make, whole=True, max_iter=1)
    assert [len(rows) for rows in seen] == sizes
    assert torch.cat(seen).sort().values.tolist() == list(range(n_rows))


def test_best_weights_are_kept():
    X, y, net = problem()
    rising = LRScheduler(
        policy="LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 15 else 300.0
    )  # then it is thrown off
    epochs = run(net, X, y, max_iter=18, net_params={"callbacks": [rising]})
    losses = [epoch.loss for epoch in epochs]
    best = int(np.argmin(losses))
    assert losses[best] < losses[-1]
    for name, value in net.state_dict().items():
        assert torch.equal(value, epochs[best].state.weights[name])
        assert torch.equal(value, epochs[-1].state.weights[name])


def test_batches_that_a_method_draws_itself():
    X, y, net = problem(50)
    seen = []

    def make_batch(drawn):
        rows, weight = drawn
        seen.append(rows.tolist())
        return X[rows], y[rows] * weight

    def drawn(generator):
        order = torch.randperm(50, generator=generator)
        yield order[:7], 1.0
        yield order[7:10], 2.0

    batches = Batches(make_batch, len(X), drawn=drawn)
    loss = lambda out, target: (out - target).square().mean()  # noqa: E731
    epochs = list(train(net, batches, loss, Training(3, 16, 0.1), randomness=randomness_of(), device=CPU))
    assert len(epochs) == 3
    assert [len(rows) for rows in seen] == [7, 3] * 3
    assert seen[0] != seen[2]


def test_batches_hold_different_rows_of_equal_number():
    X, y, net = problem(50)
    seen = []

    def make_batch(rows):
        seen.append(rows)
        return X[rows], y[rows]

    run(net, X, y, max_iter=2, make=make_batch)
    assert [len(rows) for rows in seen] == [16] * 6  # 50 rows: three batches of 16, two left out
    assert len(torch.cat(seen[:3]).unique()) == 48
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))
    seen.clear()
    run(net, X, y, max_iter=2, n_batches=1, make=make_batch)
    assert len(seen) == 2


def test_the_users_generators_are_untouched_and_a_seed_decides():
    X, y, _ = problem()

    def weights(seed, disturb):
        torch.manual_seed(disturb)
        randomness = randomness_of(seed)
        with randomness.scope():
            net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        before = torch.get_rng_state()
        run(net, X, y, randomness=randomness)
        assert torch.equal(before, torch.get_rng_state())
        return torch.cat([p.flatten() for p in net.parameters()]).detach()

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(3, 1))


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
    epochs = run(net, X, y, max_iter=4, net_params=params)
    assert log.calls[0] == "begin"
    assert log.calls[-1] == "end"
    assert log.calls[1:-1] == [epoch.loss for epoch in epochs]
    assert abs(epochs[2].loss - epochs[3].loss) < 1e-5


def test_early_stopping_on_held_out_rows():
    X, y, net = problem()
    params = {"callbacks": [EarlyStopping(patience=2)], "train_split": ValidSplit(4)}
    epochs = run(net, X, y, learning_rate=0.0, max_iter=50, net_params=params)
    assert len(epochs) == 3  # the first is the best, two more in vain


def test_the_loss_of_held_out_rows_decides():
    X, y, net = problem()
    seen = []

    def objective(out, target):
        seen.append((net.training, len(target)))
        return (out - target).square().mean()

    run(net, X, y, loss=objective, max_iter=2, net_params={"train_split": ValidSplit(4)})
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


@pytest.mark.parametrize("way", ["max_iter", "closed", "early stopping", "batch", "epoch", "loss"])
def test_the_end_of_training_is_announced_once_however_it_ends(way):
    X, y, net = problem()
    log, stop, options = Log(), [], {}
    if way == "early stopping":
        stop, options = [EarlyStopping("train_loss", patience=2)], {"learning_rate": 0.0}
    elif way in ("batch", "epoch"):
        stop = [Break(way, RuntimeError("no more"))]
    elif way == "loss":
        options = {"loss": lambda out, target: out.mean() * float("nan")}
    epochs = steps(net, X, y, max_iter=5, net_params={"callbacks": [log, *stop]}, **options)
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
        run(net, X, y, max_iter=1, net_params={"callbacks": callbacks[1:]})


@pytest.mark.parametrize("verbose", [0, 1])
def test_callbacks_print_where_the_estimator_does(verbose, capsys):
    X, y, net = problem()
    params = {"callbacks": [EarlyStopping("train_loss", patience=1)]}
    run(net, X, y, learning_rate=0.0, net_params=params, verbose=verbose)
    assert ("Stopping since" in capsys.readouterr().out) is bool(verbose)


def test_a_loss_that_is_not_finite_names_the_cure():
    X, y, net = problem()
    with pytest.raises(ValueError, match=r"loss became nan .*Lower learning_rate"):
        run(net, X, y, loss=lambda out, target: out.mean() * float("nan"))


@pytest.mark.parametrize("max_iter", [1, 3])
def test_weights_that_are_not_finite_name_the_cure(max_iter):
    """A gradient that is infinite at a finite loss, in the only epoch or before others."""
    X, y, net = problem()
    with pytest.raises(ValueError, match=r"Weights became NaN .*Lower learning_rate"):
        run(net, X, y, loss=lambda out, target: (out * 0).abs().sqrt().mean(), max_iter=max_iter, n_batches=1)


def test_a_decomposition_that_fails_names_the_cure():
    X, y, net = problem()
    with pytest.raises(ValueError, match=r"could not be computed .*Lower learning_rate"):
        run(net, X, y, loss=lambda out, target: torch.linalg.cholesky(-out.T @ out).sum())
