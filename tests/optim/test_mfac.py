"""The optimizer against its formula, its state, and its way into skorch and our networks."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank.neural import NetworkClassifier, SharpnessAware
from sklowrank.optim import MFAC

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    (X / 16 - 0.3).astype(np.float32), y, test_size=0.3, random_state=0, stratify=y
)


def parameters(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in [(4, 3), (5,), ()]]


def set_gradients(params, generator):
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def run(optimizer, params, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        set_gradients(params, generator)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in params])


@pytest.mark.parametrize("update", ["window", "available"])
def test_steps_are_those_of_the_dense_matrix(update):
    """Seventeen steps with a window of six, weight decay in the stored gradients, momentum."""
    m, damp, lr, decay, momentum = 6, 1e-2, 0.05, 0.1, 0.6
    params, others = parameters(), parameters()
    optimizer = MFAC(params, lr, momentum, decay, n_grads=m, damp=damp, update=update)
    w = torch.cat([p.detach().reshape(-1) for p in others]).numpy()
    window, v, generator = [], np.zeros_like(w), torch.Generator().manual_seed(1)
    for _ in range(17):
        set_gradients(params, generator)
        g = torch.cat([p.grad.reshape(-1) for p in params]).numpy() + decay * w
        optimizer.step()
        window = [*window, g][-m:]
        G = np.array(window)
        F = damp * np.eye(len(w)) + G.T @ G / (m if update == "window" else len(G))
        v = momentum * v + (1 - momentum) * np.linalg.solve(F, g)
        w = w - lr * v
        assert np.allclose(torch.cat([p.detach().reshape(-1) for p in params]).numpy(), w, rtol=1e-8, atol=1e-10)


def test_one_gradient_and_a_large_damping_are_gradient_descent():
    params, others = parameters(), parameters()
    ours = run(MFAC(params, lr=0.1 * 1e6, n_grads=1, damp=1e6), params, 10)
    theirs = run(torch.optim.SGD(others, lr=0.1), others, 10)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_groups_have_step_sizes_of_their_own():
    params, others = parameters(), parameters()
    optimizer = MFAC([{"params": params[:1], "lr": 0.0}, {"params": params[1:], "weight_decay": 0.0}], lr=0.1)
    after = run(optimizer, params, 3)
    before = torch.cat([p.detach().reshape(-1) for p in others])
    assert torch.equal(after[:12], before[:12])
    assert (after[12:] != before[12:]).all()
    assert optimizer.param_groups[1]["lr"] == 0.1


def test_state_dict_and_pickle_continue_as_if_nothing_had_been():
    params = parameters(torch.float32)
    optimizer = MFAC(params, lr=0.01, momentum=0.5, n_grads=4)
    run(optimizer, params, 6)
    twins = copy.deepcopy(params)
    loaded = MFAC(twins, lr=1.0, n_grads=4)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    stored = pickle.loads(pickle.dumps(optimizer))
    expected = run(optimizer, params, 5, seed=2)
    assert torch.equal(run(loaded, twins, 5, seed=2), expected)
    assert torch.equal(run(stored, stored.param_groups[0]["params"], 5, seed=2), expected)


def test_a_parameter_that_takes_the_place_of_another_joins_with_an_empty_window():
    params = parameters()
    optimizer = MFAC(params, lr=0.01, n_grads=4, damp=1e-2)
    run(optimizer, params, 6)
    gone, new = params[0], torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer.state.pop(gone)
    optimizer.param_groups[0]["params"][0] = new
    kept = [optimizer.state[p]["grads"].clone() for p in params[1:]]
    run(optimizer, [new, *params[1:]], 1, seed=3)
    G = torch.cat([optimizer.state[p]["grads"].reshape(4, -1) for p in [new, *params[1:]]], 1)
    assert torch.allclose(optimizer.state["window"]["gram"], G @ G.T)
    assert int((optimizer.state[new]["grads"].abs().sum((1, 2)) > 0).sum()) == 1
    assert all(torch.equal(a[:2], optimizer.state[p]["grads"][:2]) for a, p in zip(kept, params[1:]))


def test_zeros_at_the_start_stay_where_they_are_masked():
    for masked in (True, False):
        params = parameters()
        with torch.no_grad():
            params[0][0] = 0
        optimizer = MFAC(params, lr=0.01, momentum=0.5, weight_decay=0.1, n_grads=4, mask_zeros=masked)
        run(optimizer, params, 6)
        assert bool((params[0][0] == 0).all()) == masked
        assert bool((params[0][1:] != 0).all())


def test_a_parameter_without_a_gradient_stays():
    params = parameters()
    optimizer, before = MFAC(params, lr=0.1, n_grads=3), params[1].detach().clone()
    assert optimizer.step() is None  # no gradient at all
    for _ in range(5):
        params[0].grad = torch.ones_like(params[0])
        optimizer.step()
    assert torch.equal(params[1], before)
    assert bool((params[0] < parameters()[0]).all())


def test_a_closure_is_called():
    w = torch.ones(2, requires_grad=True)
    optimizer = MFAC([w], lr=1e-3, damp=1.0)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 2.0
    assert float(w.detach().sum()) < 2.0


def test_gradients_that_are_not_finite_are_refused_and_leave_the_window():
    params = parameters()
    optimizer = MFAC(params, n_grads=3)
    run(optimizer, params, 2)
    params[0].grad[0, 0] = np.nan
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match=r"NaN or infinite entries\. Lower lr"):
        optimizer.step()
    assert torch.equal(params[0], before)
    assert bool(torch.isfinite(run(optimizer, params, 4)).all())


def test_float32_with_a_small_damping_is_finite():
    """Large equal gradients, whose matrix is singular to rounding."""
    w = torch.ones(50, requires_grad=True)
    optimizer = MFAC([w], lr=1e-3, n_grads=8, damp=1e-10)
    w.grad = 1e6 * torch.ones(50)
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="damp=1e-10 is too small") as caught:
        optimizer.step()
    assert bool(w.isfinite().all())
    assert {warning.filename for warning in caught} == {__file__}  # the line that took the step


@pytest.mark.parametrize(
    "params",
    [{"lr": -1}, {"momentum": 1.0}, {"weight_decay": -1e-9}, {"n_grads": 0}, {"n_grads": 1.5}, {"damp": 0.0},
     {"damp": -1}, {"update": "all"}],
    ids=str,
)  # fmt: skip
def test_bad_values_are_refused(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        MFAC(parameters(), **params)


def test_what_all_parameters_share_is_refused_in_a_group():
    with pytest.raises(ValueError, match="damp is shared by all parameters"):
        MFAC([{"params": parameters(), "damp": 1.0}])
    sparse = nn.Embedding(5, 2, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="does not take sparse gradients"):
        MFAC(sparse.parameters()).step()


def test_badly_conditioned_least_squares_in_fewer_steps():
    """Two directions, of which one has a ten thousandth of the curvature; gradient descent at its best step size."""
    scales = torch.tensor([1.0, 0.01], dtype=torch.float64)

    def error(make, steps):
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer, generator = make([w]), torch.Generator().manual_seed(0)
        for _ in range(steps):
            rows = torch.randn(16, 2, generator=generator, dtype=torch.float64) * scales
            optimizer.zero_grad()
            noise = 0.1 * torch.randn(16, generator=generator, dtype=torch.float64)
            (rows @ (w - 1 / scales) + noise).square().mean().backward()
            optimizer.step()
        return float(((w.detach() * scales - 1) ** 2).sum())

    plain = min(error(lambda p, lr=lr: torch.optim.SGD(p, lr=lr), 800) for lr in (0.1, 0.3, 0.5, 0.9))
    assert error(lambda p: MFAC(p, lr=0.02, n_grads=16, damp=1e-5), 400) < 0.1 * plain


# In skorch, and in our networks


def net(**params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    settings = {"max_epochs": 20, "lr": 1e-2, "batch_size": 64, "train_split": None, "verbose": 0}
    options = {"optimizer__damp": 1e-3, "optimizer__n_grads": 32, **settings, **params}
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, optimizer=MFAC, **options)


def test_in_skorch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = net().fit(X_train, y_train)
        assert model.score(X_test, y_test) >= 0.95
        twin = pickle.loads(pickle.dumps(model))
        assert np.array_equal(twin.predict(X_test), model.predict(X_test))
        assert twin.partial_fit(X_train[:200], y_train[:200]).score(X_test, y_test) > 0.9
        search = GridSearchCV(clone(net(max_epochs=2)), {"optimizer__damp": [1e-3, 1e8]}, cv=2, error_score="raise")
        assert search.fit(X_train[:300], y_train[:300]).best_params_ == {"optimizer__damp": 1e-3}


def test_in_our_networks():
    params = {"optimizer": MFAC, "optimizer__damp": 1e-3, "optimizer__n_grads": 32}
    settings = {"max_iter": 8, "learning_rate": 1e-2, "tol": 0, "random_state": 0, "standardize": False}
    model = NetworkClassifier((64,), net_params=params, **settings).fit(X_train, y_train)
    assert model.score(X_test, y_test) >= 0.9
    loss = model.loss_curve_[-1]
    twin = pickle.loads(pickle.dumps(model)).partial_fit(X_train, y_train)
    assert twin.loss_curve_[-1] < 1.1 * loss
    assert twin._fitted["optimizer"][0]["step"] == 9 * -(-len(X_train) // 64)  # the window was there
    rule = NetworkClassifier((16,), training=SharpnessAware(), net_params=params, **settings | {"max_iter": 2})
    assert np.isfinite(rule.fit(X_train, y_train).loss_curve_).all()


@pytest.mark.cuda
def test_on_a_gpu():
    params, others = parameters(), [p.detach().cuda().requires_grad_() for p in parameters()]
    expected = run(MFAC(params, lr=0.01, n_grads=4), params, 1)
    optimizer = MFAC(others, lr=0.01, n_grads=4)
    for p, q in zip(params, others):
        q.grad = p.grad.cuda()
    optimizer.step()
    found = torch.cat([p.detach().reshape(-1) for p in others])
    assert torch.allclose(found.cpu(), expected, rtol=1e-8)
