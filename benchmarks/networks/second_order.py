"""Second-order information: the inverse of the Fisher matrix, steps with it, and networks pruned by it."""

import os
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.harness import clock, peak, quietly

D, M, DAMP = 300, 32, 1e-3
SEEDS = 3
SPARSITIES = (0.8, 0.9)


def digits():
    """Training rows, test rows, their labels."""
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)


# The inverse


def inverse_errors(dtype):
    """Relative errors of products and of the diagonal, and of a window after 80 updates."""
    from sklowrank.optim import InverseFisher

    rng = np.random.default_rng(0)
    grads, stream, x = rng.normal(size=(M, D)).astype(dtype), rng.normal(size=(80, D)), rng.normal(size=D)
    dense = np.linalg.inv(DAMP * np.eye(D) + grads.astype(float).T @ grads.astype(float) / M)
    inverse, x = InverseFisher(grads, DAMP), x.astype(dtype)

    def error(found, expected):
        return np.linalg.norm(found - expected) / np.linalg.norm(expected)

    product = error(inverse.mul(x), dense @ x.astype(float))
    diagonal = error(inverse.diag(), np.diag(dense))
    for g in stream:
        inverse.update(g)
    fresh = InverseFisher(stream[-M:].astype(dtype), DAMP)
    window = max(error(inverse.mul(x), fresh.mul(x)), error(inverse.diag(), fresh.diag()))
    remark = f"product {product:.1e}, diagonal {diagonal:.1e}, window {window:.1e}"
    return {"error": max(product, diagonal), "window": window, "remark": remark}


def inverse_of_the_fisher_matrix(bench):
    """inverse Fisher: 32 gradients of 300 parameters, damping 1e-3, against the dense inverse; 80 updates."""
    double, single = (bench.measure(f"InverseFisher, {dtype}", inverse_errors, dtype) for dtype in ("f8", "f4"))
    bench.claim("error of product and diagonal, float64", double.error, at_most=1e-10)
    bench.claim("error of product and diagonal, float32", single.error, at_most=1e-5)
    bench.claim("80 updates against a fresh build, float64", double.window, at_most=1e-9)


# Steps


def steps_needed(name, lr, params, most, seed):
    """Steps until the loss is a thousandth of that of the start; infinite where it does not come to that."""
    import torch

    from sklowrank.optim import MFAC

    rng, d = torch.Generator().manual_seed(0), 50
    Q = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64))[0]
    scales = torch.logspace(0, -4, d, dtype=torch.float64)
    root = (Q * scales.sqrt()) @ Q.T
    best = 0.3 * Q @ (torch.randn(d, generator=rng, dtype=torch.float64) / scales.sqrt())
    w, rows = torch.zeros(d, dtype=torch.float64, requires_grad=True), torch.Generator().manual_seed(seed)
    optimizer = {"MFAC": MFAC, "SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}[name]([w], lr=lr, **params)
    start = float((root @ best).square().sum())
    for step in range(most):
        away = (w - best).detach()
        if (now := float((root @ away).square().sum())) < 1e-3 * start:
            return {"steps": step, "remark": f"{step} steps, seed {seed}, lr {lr:g}"}
        if not now < 1e6 * start:
            break
        X = torch.randn(32, d, generator=rows, dtype=torch.float64) @ root
        w.grad = X.T @ (X @ away + 0.1 * torch.randn(32, generator=rows, dtype=torch.float64)) / 32
        optimizer.step()
    return {"steps": np.inf, "remark": f"not in {step + 1} steps, seed {seed}, lr {lr:g}"}


def badly_conditioned(bench):
    """quadratic: least squares of 50 parameters, condition 1e4, batches of 32 noisy rows, a random start.

    The start is as far from the optimum in each direction, measured by the loss. Each optimizer runs at each step size
    of a grid with one seed, and at its best one with two more; medians. MFAC keeps 128 gradients, damping 1e-4.
    """
    grids = {
        "MFAC": ((1e-3, 2e-3, 4e-3), {"n_grads": 128, "damp": 1e-4}, 6000),
        "SGD": ((0.5, 1.0, 1.5, 1.8), {}, 25000),
        "AdamW": ((3e-3, 1e-2, 3e-2), {"weight_decay": 0.0}, 25000),
    }
    found = {}
    for name, (grid, params, most) in grids.items():
        by_lr = {lr: bench.measure(name, steps_needed, name, lr, params, most, 1).steps for lr in grid}
        lr = min(by_lr, key=by_lr.get)
        others = [bench.measure(name, steps_needed, name, lr, params, most, seed).steps for seed in (2, 3)]
        found[name] = float(np.median([by_lr[lr], *others]))
    bench.claim("steps of MFAC against SGD at its best step size", found["MFAC"], found["SGD"], at_most=0.5)
    bench.note("AdamW at its best step size", f"{found['AdamW']:.0f} steps, MFAC {found['MFAC']:.0f}")


# Pruned networks


def pruned(how, sparsity, n_recompute=16):
    """Mean test accuracy of networks of three seeds."""
    import torch
    from sklearn.frozen import FrozenEstimator
    from torch import nn
    from torch.nn.utils.prune import L1Unstructured, global_unstructured

    from sklowrank.compress import SecondOrderPruner
    from sklowrank.neural import NetworkClassifier

    X, X_test, y, y_test = digits()
    right, times, change = [], [], 0.0
    for seed in range(SEEDS):
        options = {"max_iter": 30, "learning_rate": 2e-3, "tol": 0, "standardize": False, "random_state": seed}
        model = NetworkClassifier((64, 64), **options).fit(X, y)
        if how == "ours":
            device = os.environ["SKLOWRANK_BENCH_DEVICE"]
            options = {"n_recompute": n_recompute, "random_state": seed, "device": device}
            pruner = SecondOrderPruner(FrozenEstimator(model), sparsity=sparsity, **options)
            start = time.process_time()
            pruner.fit(X, y)
            times.append(time.process_time() - start)
            right.append(pruner.score(X_test, y_test))
            change = max(change, np.abs(pruner.predict_proba(X_test) - model.predict_proba(X_test)).max())
        else:
            net = model.network()
            if how == "torch":
                layers = [(layer, "weight") for layer in net if isinstance(layer, nn.Linear)]
                start = time.process_time()
                global_unstructured(layers, L1Unstructured, amount=sparsity)
                times.append(time.process_time() - start)
            elif how == "diagonal":
                by_the_diagonal(net, X, y, sparsity, seed)
            outputs = net(torch.from_numpy(X_test).float())
            right.append(float(np.mean(outputs.argmax(1).numpy() == y_test)))
    remark = f"accuracy {np.mean(right):.3f} ({min(right):.3f} to {max(right):.3f})"
    times = {"seconds": np.mean(times)} if times else {}
    return {"accuracy": np.mean(right), "change": change, "error": 1 - np.mean(right), "remark": remark, **times}


def by_the_diagonal(net, X, y, sparsity, seed):
    """Prune at once as the paper does: the change of the other weights by the diagonal of the inverse alone."""
    import torch

    from sklowrank._nets.found import find_network
    from sklowrank.compress._second_order_pruner_solver import put, row_gradients, weights_of_module
    from sklowrank.optim import InverseFisher

    found, weights = find_network(net), weights_of_module(net)
    at = np.random.default_rng(seed).permutation(len(X))[:512]
    rows, target = torch.from_numpy(X[at]).float(), torch.from_numpy(y[at])
    inverse = InverseFisher(row_gradients(net, weights.names, found.loss, rows, target), 1e-5)
    diagonal, w = inverse.diag(), weights.values
    removed = (w.square() / diagonal).argsort()[: round(sparsity * len(w))]
    z = torch.zeros_like(w)
    z[removed] = w[removed] / diagonal[removed]
    values = w - inverse.mul(z)
    values[removed] = 0
    put(weights._replace(values=values), net)


def pruned_digits(bench):
    """pruned networks: digits, hidden layers of 64 and 64 units, 30 epochs, and no training afterwards; three nets.

    Seconds are those of the processor.

    Peers: torch's global magnitude pruning of the same networks. One shot computes the curvature once, and with the
    diagonal the others follow by the diagonal of the inverse alone, as in the paper.
    """
    dense = bench.measure("not pruned", pruned, "nothing", 0.0)
    bench.claim("accuracy of the networks", dense.accuracy, at_least=0.96)
    nothing = bench.measure("SecondOrderPruner, 0 %", pruned, "ours", 0.0)
    bench.claim("change of probabilities at 0 %", nothing.change, at_most=1e-6)
    for share in SPARSITIES:
        magnitude = bench.measure(f"magnitudes, {share:.0%}", pruned, "torch", share)
        diagonal = bench.measure(f"one shot, diagonal, {share:.0%}", pruned, "diagonal", share)
        once = bench.measure(f"SecondOrderPruner, one shot, {share:.0%}", pruned, "ours", share, 1)
        ours = bench.measure(f"SecondOrderPruner, {share:.0%}", pruned, "ours", share)
        bench.claim(f"one shot above magnitudes, {share:.0%}", once.accuracy - magnitude.accuracy, at_least=0.02)
        gain = ours.accuracy - magnitude.accuracy
        bench.claim(f"SecondOrderPruner above magnitudes, {share:.0%}", gain, at_least=0.02)
        bench.note(f"one shot, exact against the diagonal, {share:.0%}", f"{once.accuracy - diagonal.accuracy:+.3f}")


# In skorch


def in_skorch(name, lr, params):
    """Test accuracy after 20 epochs, and seconds."""
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    from sklowrank.optim import MFAC

    X, X_test, y, y_test = digits()
    X, X_test = X.astype(np.float32), X_test.astype(np.float32)
    right = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = NeuralNetClassifier(
            nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
            criterion=nn.CrossEntropyLoss,
            optimizer=MFAC if name == "MFAC" else getattr(torch.optim, name),
            lr=lr,
            max_epochs=20,
            batch_size=64,
            train_split=None,
            verbose=0,
            **params,
        )
        _, seconds = clock(lambda net=net: quietly(net.fit, X, y), budget=0, repeats=1)
        right.append(net.score(X_test, y_test))
    remark = f"accuracy {np.mean(right):.3f} ({min(right):.3f} to {max(right):.3f}), lr {lr:g}"
    return {"accuracy": np.mean(right), "error": 1 - np.mean(right), "seconds": seconds, "remark": remark}


def skorch(bench):
    """MFAC in skorch: digits, 64 hidden units, 20 epochs of batches of 64; three seeds, each at its best step size."""
    grids = {"MFAC": (3e-3, 1e-2, 3e-2), "SGD": (0.1, 0.3, 1.0), "AdamW": (1e-3, 3e-3, 1e-2)}
    best = {}
    for name, grid in grids.items():
        found = [bench.measure(name, in_skorch, name, lr, {}) for lr in grid]
        best[name] = max(found, key=lambda row: row.accuracy)
    bench.claim("accuracy of MFAC", best["MFAC"].accuracy, at_least=0.95)
    bench.note("accuracy at the best step sizes", ", ".join(f"{n} {row.accuracy:.3f}" for n, row in best.items()))


def wide_steps(name):
    """Time of a step and memory at width 1,024."""
    import torch
    from torch import nn

    from sklowrank.optim import MFAC

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    net = net.to(device)
    X, y = torch.randn(64, 64, device=device), torch.randint(10, (64,), device=device)
    make = {"MFAC": MFAC, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}[name]
    optimizer, before, times = make(net.parameters(), lr=1e-4), peak(), []
    for _ in range(12):
        start = time.process_time() if device == "cpu" else time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append((time.process_time() if device == "cpu" else time.perf_counter()) - start)
    seconds, added = float(np.median(times[2:])), peak() - before
    return {"seconds": seconds, "added": added, "remark": f"{1000 * seconds:.1f} ms a step, {added:.0f} MB added"}


def steps_of_mfac(bench):
    """steps of MFAC at width 1,024: 1.1 million parameters, batches of 64 rows, 64 gradients are kept."""
    found = {name: bench.measure(name, wide_steps, name) for name in ("SGD", "AdamW", "MFAC")}
    time_, memory = (found["MFAC"].seconds / found["AdamW"].seconds, found["MFAC"].added - found["AdamW"].added)
    bench.note("MFAC against AdamW", f"{time_:.2f} times the time, {memory:.0f} MB more")


CASES = [inverse_of_the_fisher_matrix, badly_conditioned, pruned_digits, skorch, steps_of_mfac]
