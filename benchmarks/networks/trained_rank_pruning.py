"""Trained rank pruning: ranks and accuracy against truncation after the training, exactness, cost of a step."""

import os
import time

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.data import bundled
from benchmarks.harness import peak, quietly

SIZES, EPOCHS, SEEDS = (128, 128), 60, 3
WIDTHS = {128: (5, 20, 100), 1024: (20, 100)}  # and periods
RULE = {"energy": 0.98, "period": 5, "nuclear_weight": 1e-2}
OTHERS = {
    "defaults": {},
    "energy 0.9, period 1, nuclear 3e-4": {"energy": 0.9, "period": 1, "nuclear_weight": 3e-4},
    "energy 0.95, period 5, nuclear 1e-2": {**RULE, "energy": 0.95},
    "energy 0.98, period 5, no nuclear norm": {**RULE, "nuclear_weight": 0},
    "nuclear 1e-2 alone, threshold 0.1": {**RULE, "truncate": False, "final_threshold": 0.1},
}


def digits():
    X, y = bundled("digits")
    return train_test_split((X / 16 - 0.3).astype(np.float32), y, test_size=0.3, stratify=y, random_state=0)


def network(rule, seed, sizes=SIZES, **params):
    from sklowrank.neural import NetworkClassifier, TrainedRankPruning

    return NetworkClassifier(
        sizes,
        training=None if rule is None else TrainedRankPruning(**rule),
        **{"max_iter": EPOCHS, "tol": 0, "standardize": False, "random_state": seed, **params},
        device=os.environ["SKLOWRANK_BENCH_DEVICE"],
    )


def thin(module, ranks):
    """A module whose layers 0 and 2 are two thin layers each, of the nearest weights."""
    import torch
    from torch import nn

    for at, rank in zip((2, 0), ranks[::-1]):
        W, b = (part.detach() for part in module[at].parameters())
        U, s, Vh = torch.linalg.svd(W, full_matrices=False)
        down, up = nn.Linear(W.shape[1], rank, bias=False), nn.Linear(rank, W.shape[0])
        with torch.no_grad():
            up.weight.copy_(U[:, :rank] * s[:rank].sqrt())
            down.weight.copy_(s[:rank, None].sqrt() * Vh[:rank])
            up.bias.copy_(b)
        module[at] = nn.Sequential(down, up)
    return module


def right(module, X, y):
    import torch

    with torch.inference_mode():
        return float((module(torch.from_numpy(X)).argmax(1).numpy() == y).mean())


def over_seeds(fit):
    """Lowest and mean accuracy, largest ranks, most parameters, seconds of the fastest fit."""
    data = digits()
    accuracies, ranks, sizes, times = [], [], [], []
    for seed in range(SEEDS):
        start = time.perf_counter()
        accuracy, rank, size = fit(data, seed)
        times.append(time.perf_counter() - start)
        accuracies.append(accuracy)
        ranks.append(rank)
        sizes.append(size)
    spread = f"accuracy {min(accuracies):.3f} to {max(accuracies):.3f}, mean {np.mean(accuracies):.3f}"
    found = {"lowest": min(accuracies), "mean": np.mean(accuracies), "seconds": min(times), "sizes": max(sizes)}
    remark = f"{spread}, ranks {', '.join(map(str, ranks))}, {max(sizes):,} parameters"
    return {**found, "error": 1 - np.mean(accuracies), "ranks": ranks, "largest": np.max(ranks), "remark": remark}


def pruned(rule, **params):
    def fit(data, seed):
        X, X_new, y, y_new = data
        model = quietly(network(rule, seed, **params).fit, X, y)
        return model.score(X_new, y_new), tuple(model.ranks_[:2]), model.n_parameters_

    return over_seeds(fit)


def cut(ranks, epochs=0):
    """Plain training, its weights truncated, and some epochs of it more."""
    import torch

    def fit(data, seed):
        X, X_new, y, y_new = data
        module = thin(network(None, seed).fit(X, y).network(), ranks[seed])
        if epochs:
            model = network(None, seed, module=module, max_iter=epochs)
            module = model.fit(X, y).network()
        return right(module, X_new, y_new), ranks[seed], sum(p.numel() for p in module.parameters())

    with torch.random.fork_rng():
        return over_seeds(fit)


def from_the_start(ranks):
    """Thin layers of given ranks with torch's initial weights, plain training."""
    import torch
    from torch import nn

    def fit(data, seed):
        X, X_new, y, y_new = data
        torch.manual_seed(seed)
        layers = []
        for n_in, rank in zip((64, SIZES[0]), ranks[seed]):
            layers += [nn.Linear(n_in, rank, bias=False), nn.Linear(rank, SIZES[0]), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(SIZES[1], 10))
        module = network(None, seed, module=module).fit(X, y).network()
        return right(module, X_new, y_new), ranks[seed], sum(p.numel() for p in module.parameters())

    with torch.random.fork_rng():
        return over_seeds(fit)


def exactness():
    """Largest difference between thin layers and their products, and between no rule and one that does nothing."""
    import torch

    X, X_new, y, _ = digits()
    module, X_new = network(RULE, 0).fit(X, y).network().requires_grad_(False), torch.from_numpy(X_new)
    outputs = module(X_new)
    for at in (0, 2):
        module[at] = module[at].multiplied_out()
    plain, nothing = (network(rule, 0).fit(X, y) for rule in (None, {"truncate": False, "nuclear_weight": 0}))
    gaps = [np.abs(plain.weights_[name] - nothing.weights_[name]).max() for name in plain.weights_]
    return {"thin": float((module(X_new) - outputs).abs().max()), "plain": float(max(gaps))}


def accuracy_at_low_rank(bench):
    """trained rank pruning: digits, hidden layers of 128 and 128, Adam at 1e-3, 60 epochs, seeds 0 to 2"""
    found = bench.measure("energy 0.98, period 5, nuclear 1e-2", pruned, RULE)
    lower = [(max(1, sum(r) - 5 - (sum(r) - 5) // 2), (sum(r) - 5) // 2) for r in found.ranks]
    plain = bench.measure("plain training", pruned, None)
    after = bench.measure("plain, truncated to a total rank less by 5", cut, lower)
    bench.measure("plain, truncated to the same ranks", cut, found.ranks)
    bench.measure("plain, truncated, 10 epochs of it more", cut, found.ranks, 10)
    bench.measure("thin layers of these ranks from the start", from_the_start, found.ranks)
    for name, rule in OTHERS.items():
        bench.measure(name, pruned, rule)
    bench.measure("early stopping", _with_early_stopping)
    bench.measure("plain, hidden layers of 42 and 42", _narrow)
    bench.claim("largest rank of both layers, of three seeds", found.largest, at_most=10)
    bench.claim("lowest accuracy of three seeds", found.lowest, at_least=0.955)
    bench.claim("accuracy above plain training truncated to a rank less by 5", found.mean - after.mean, at_least=0.1)
    bench.claim("parameters", found.sizes, plain.sizes, at_most=0.35)


def _with_early_stopping():
    return pruned(RULE, early_stopping=True, n_iter_no_change=EPOCHS)


def _narrow():
    return pruned(None, sizes=(42, 42))


def exact_layers(bench):
    """trained rank pruning, exactness: thin layers against their products, a rule that does nothing against none"""
    found = bench.measure("differences", exactness)
    bench.claim("outputs of thin layers and of their products", found.thin, at_most=1e-5)
    bench.claim("weights of no rule and of one that does nothing", found.plain, at_most=0)


def step(width, period):
    """Processor time of a step, a mean over as many as there are between truncations, and memory that a fit adds."""
    from skorch.callbacks import Callback

    class Clock(Callback):
        def on_epoch_end(self, net, **kwargs):
            times.append(time.process_time())

    times = []
    rng, n_steps = np.random.default_rng(0), period or 20
    X, y = rng.normal(size=(64 * n_steps, 64)).astype(np.float32), rng.integers(0, 10, size=64 * n_steps)
    rule = None if period is None else {"period": period}
    network(None, 0, sizes=(8, 8), max_iter=1).fit(X, y)  # what is imported and set up once
    before, watched = peak(), {"callbacks": [Clock()]}
    model = network(rule, 0, sizes=(width, width), max_iter=max(7, 160 // n_steps), net_params=watched)
    quietly(model.fit, X, y)
    seconds = min(np.diff(times)) / n_steps
    added = peak() - before
    return {"seconds": seconds, "added": added, "remark": f"{1000 * seconds:.2f} ms a step, {added:.0f} MB added"}


def cost_of_a_step(bench):
    """trained rank pruning, cost: processor time of a step, memory of a fit, by width and period, 64 rows"""
    for width, periods in WIDTHS.items():
        plain = bench.measure(f"width {width:,}, plain training", step, width, None)
        for period in periods:
            found = bench.measure(f"width {width:,}, period {period}", step, width, period)
            what = f"{found.seconds / plain.seconds:.2f} times the time, {found.added - plain.added:.0f} MB more"
            bench.note(f"width {width:,}, period {period}, against plain", what)


CASES = [accuracy_at_low_rank, exact_layers, cost_of_a_step]
