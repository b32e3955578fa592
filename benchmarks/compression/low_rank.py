"""Layers of low rank without training: errors and accuracies at ranks and budgets, and what predictions cost."""

import os
import time
from itertools import pairwise

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

RANKS = (16, 8, 6, 4)
SEEDS = 3
METHODS = {
    "output_pca": {},
    "input_whitened": {"method": "input_whitened"},
    "weight_svd": {"method": "weight_svd"},
    "output_pca, layers apart": {"sequential": False},
}


def digits(seed):
    """Rows of the training, of the test, and their labels."""
    X, y = load_digits(return_X_y=True)
    return train_test_split((X / 16).astype(np.float32), y, test_size=0.4, random_state=seed, stratify=y)


def mlp(*widths):
    """Linear layers named wide1, wide2, ... and output, with ReLU between them."""
    from torch import nn

    net = nn.Sequential()
    for i, (n_in, n_out) in enumerate(pairwise(widths[:-1]), 1):
        net.add_module(f"wide{i}", nn.Linear(n_in, n_out))
        net.add_module(f"relu{i}", nn.ReLU())
    net.add_module("output", nn.Linear(widths[-2], widths[-1]))
    return net


def cnn(*channels):
    """Three convolutions of 8 x 8 images given as rows, and a linear layer."""
    from torch import nn

    sizes = (1, *channels)
    layers = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(3):
        layers += [nn.Conv2d(sizes[i], sizes[i + 1], 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i == 1 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels[-1], 10))


def trained(build, X, y, seed=0, epochs=30):
    """A skorch net after some epochs of Adam, batches of 64."""
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    torch.manual_seed(seed)
    how = {"optimizer": torch.optim.Adam, "lr": 1e-3, "max_epochs": epochs, "batch_size": 64}
    net = NeuralNetClassifier(
        build, criterion=nn.CrossEntropyLoss, iterator_train__shuffle=True, train_split=None, verbose=0, **how
    )
    return net.fit(X, y)


def networks():
    """Three fitted networks 64-256-256-256-10 and their rows."""
    for seed in range(SEEDS):
        X, X_test, y, y_test = digits(seed)
        yield trained(lambda: mlp(64, 256, 256, 256, 10), X, y, seed), X, X_test, y, y_test


def compressor(net, **params):
    """A compressor around a fitted network."""
    from sklearn.frozen import FrozenEstimator

    from sklowrank.compress import LowRankCompressor

    return LowRankCompressor(FrozenEstimator(net), device=os.environ["SKLOWRANK_BENCH_DEVICE"], **params)


def raw(net, X):
    """Outputs of the module."""
    import torch

    with torch.inference_mode():
        return net.module_.eval()(torch.from_numpy(X)).numpy()


def relative_error(found, truth):
    """Mean squared change over the variance."""
    return float(np.square(found - truth).sum() / np.square(truth - truth.mean(0)).sum())


# Ranks and budgets


def at_ranks(params):
    """Accuracy and relative error of the outputs on test rows, at each rank; seconds of a fit."""
    right, errors, shares, times = (np.zeros((SEEDS, len(RANKS))) for _ in range(4))
    for i, (net, X, X_test, _, y_test) in enumerate(networks()):
        for j, rank in enumerate(RANKS):
            start = time.process_time()
            model = compressor(net, rank=rank, modules="wide*", **params).fit(X[:300])
            times[i, j] = time.process_time() - start
            right[i, j], shares[i, j] = model.score(X_test, y_test), model.compression_
            errors[i, j] = relative_error(model.predict_raw(X_test), raw(net, X_test))
    found = {f"accuracy at {r}": a for r, a in zip(RANKS, right.mean(0))}
    found |= {f"error at {r}": e for r, e in zip(RANKS, errors.mean(0))}
    parts = zip(RANKS, shares.mean(0), right.mean(0), errors.mean(0))
    remark = "; ".join(f"rank {r}, {s:.1%}: accuracy {a:.3f}, error {e:.4f}" for r, s, a, e in parts)
    return {**found, "seconds": float(np.median(times)), "remark": remark}


def dense():
    """Accuracy of the networks."""
    right = [net.score(X_test, y_test) for net, _, X_test, _, y_test in networks()]
    return {"accuracy": float(np.mean(right)), "remark": f"accuracy {np.mean(right):.3f}"}


def one_rank(bench):
    """low rank, one rank: digits, three networks 64-256-256-256-10, the wide layers, fitted to 300 training rows.

    The errors of outputs are relative to their variance, on test rows. "weight_svd" is the truncated SVD of the
    weights, which packages for tensor decompositions give.
    """
    before = bench.measure("not compressed", dense)
    found = {name: bench.measure(name, at_ranks, params) for name, params in METHODS.items()}
    ours, plain, apart = found["output_pca"], found["weight_svd"], found["output_pca, layers apart"]
    bench.claim("accuracy lost at rank 16", before.accuracy - ours["accuracy at 16"], at_most=0.006)
    bench.claim("error at rank 16", ours["error at 16"], at_most=0.005)
    bench.claim("error of the weight's SVD over ours, rank 16", plain["error at 16"] / ours["error at 16"], at_least=3)
    bench.claim("accuracy at rank 6", ours["accuracy at 6"], at_least=0.88)
    bench.claim("the same above the weight's SVD", ours["accuracy at 6"] - plain["accuracy at 6"], at_least=0.06)
    bench.claim("error against layers apart, rank 6", ours["error at 6"], apart["error at 6"], at_most=1.0)


def at_budgets(allocation):
    """Relative errors on the rows of the fit, accuracies on test rows."""
    budgets = (0.25, 0.10)
    errors, right, kept = np.zeros((SEEDS, 2)), np.zeros((SEEDS, 2)), True
    for i, (net, X, X_test, _, y_test) in enumerate(networks()):
        for j, budget in enumerate(budgets):
            model = compressor(net, compression=budget, allocation=allocation).fit(X[:300])
            errors[i, j], right[i, j] = model.output_relative_error_, model.score(X_test, y_test)
            kept &= model.compression_ <= budget
    parts = zip(budgets, errors.mean(0), right.mean(0))
    remark = "; ".join(f"{b:.0%}: error {e:.5f}, accuracy {a:.3f}" for b, e, a in parts)
    return {"at 25 %": errors.mean(0)[0], "at 10 %": errors.mean(0)[1], "kept": float(kept), "remark": remark}


def at_tolerance():
    """Drop of the score on the rows of the fit, and on test rows, for a tolerance of a hundredth."""
    drops, tests, shares = [], [], []
    for net, X, X_test, y, y_test in networks():
        model = compressor(net, tolerance=0.01).fit(X[:300], y[:300])
        drops.append(net.score(X[:300], y[:300]) - model.score(X[:300], y[:300]))
        tests.append(net.score(X_test, y_test) - model.score(X_test, y_test))
        shares.append(model.compression_)
    remark = f"parameters {', '.join(f'{s:.1%}' for s in shares)}; drop {np.mean(drops):.3f}, test {np.mean(tests):.3f}"
    return {"drop": max(drops), "share": max(shares), "remark": remark}


def budgets(bench):
    """low rank, budgets: the same networks, all layers, ranks by a number of parameters; errors on the fit's rows."""
    found = {name: bench.measure(name, at_budgets, name) for name in ("greedy", "energy", "uniform")}
    bench.claim("all budgets are kept", min(row.kept for row in found.values()), at_least=1)
    for share, need in (("at 25 %", 0.003), ("at 10 %", 0.035)):
        bench.claim(f"error, greedy, {share}", found["greedy"][share], at_most=need)
        bench.claim(f"greedy against energy, {share}", found["greedy"][share], found["energy"][share], at_most=1.0)
    tolerance = bench.measure("tolerance=0.01", at_tolerance)
    bench.claim("drop of the score on the fit's rows", tolerance.drop, at_most=0.01 + 1e-12)
    bench.claim("parameters", tolerance.share, at_most=0.22)


# What it costs


def milliseconds(module, X):
    """Median processor time of a pass of 1,000 rows in one batch, and of a single row, on one thread."""
    import torch

    torch.set_num_threads(1)
    rows = torch.from_numpy(np.resize(X, (1000, X.shape[1])))
    times = {1000: [], 1: []}
    with torch.inference_mode():
        for n, found in times.items():
            for _ in range(30):
                start = time.process_time()
                module(rows[:n])
                found.append(1000 * (time.process_time() - start))
    return float(np.median(times[1000][5:])), float(np.median(times[1][5:]))


def narrow(share, width):
    """The width of three hidden layers that have a share of the parameters of those of a width."""

    def size(w):
        return 64 * w + 2 * w * w + 10 * w + 3 * w + 10

    return min(range(1, width + 1), key=lambda w: abs(size(w) - share * size(width)))


BUILDS = {
    "width 256": (lambda share: mlp(64, *(narrow(share, 256),) * 3, 10), 30),
    "width 1,024": (lambda share: mlp(64, *(narrow(share, 1024),) * 3, 10), 4),
    "convolutions": (lambda share: cnn(*(round(width * share**0.5) for width in (32, 64, 64))), 6),
}


def latency(kind):
    """Accuracies on test rows and milliseconds of a network: as it is, compressed, and narrow from scratch."""
    build, epochs = BUILDS[kind]
    X, X_test, y, y_test = digits(0)
    net = trained(lambda: build(1.0), X, y, epochs=epochs)
    n_before = sum(p.numel() for p in net.module_.parameters())
    found, remarks = {}, {}

    def note(name, module, score, extra=""):
        many, one = milliseconds(module, X_test)
        n, right = sum(p.numel() for p in module.parameters()), score(X_test, y_test)
        found.update({f"{name}, many": many, f"{name}, one": one, f"{name}, accuracy": right})
        remarks[name] = (
            f"{n / n_before:.1%} of {n_before:,}, accuracy {right:.3f}, {many:.2f} ms, row {one:.3f} ms{extra}"
        )

    note("dense", net.module_.eval(), net.score)
    for share in (0.25, 0.10):
        start = time.process_time()
        model = compressor(net, compression=share).fit(X[:500])
        note(f"compressed {share:.0%}", model.network(), model.score, f", fit {time.process_time() - start:.2f} s")
        small = trained(lambda share=share: build(share), X, y, epochs=epochs)
        note(f"narrow {share:.0%}", small.module_.eval(), small.score)
    return {**found, "remarks": remarks}


def latencies(bench):
    """low rank, latency: processor time of 1,000 rows of digits and of a single row, one thread, and of the fit.

    Multilayer perceptrons with three hidden layers of 256 and of 1,024 units, and convolutions with 32, 64 and 64
    channels; compressed to a quarter and a tenth of the parameters, against narrow networks of as many parameters that
    are trained from scratch with the same settings.
    """
    for kind in BUILDS:
        row = bench.measure(kind, latency, kind)
        for name, remark in row.get("remarks", {}).items():
            bench.note(f"{kind}, {name}", remark)
        ours, whole = row["compressed 25%, accuracy"], row["dense, accuracy"]
        bench.claim(
            f"{kind}: accuracy above the narrow network's, 25 %", ours - row["narrow 25%, accuracy"], at_least=0
        )
        if kind != "convolutions":
            bench.claim(f"{kind}: accuracy lost at 25 %", whole - ours, at_most=0.01)
        if kind == "width 1,024":
            times = row["dense, many"] / row["compressed 10%, many"]
            bench.claim(f"{kind}: 1,000 rows at 10 %, times as fast as dense", times, at_least=2)


def few_rows(n_rows, standardize):
    """Relative errors on test rows at rank 16, of fits to some rows, and of the weight's SVD."""
    from sklearn.preprocessing import StandardScaler

    X, X_test, y, _ = digits(0)
    if standardize:
        scaler = StandardScaler().fit(X)
        X, X_test = (scaler.transform(part).astype(np.float32) for part in (X, X_test))
    net = trained(lambda: mlp(64, 256, 256, 256, 10), X, y)
    found = {
        method: relative_error(
            compressor(net, rank=16, method=method, modules="wide*").fit(X[:n_rows]).predict_raw(X_test),
            raw(net, X_test),
        )
        for method in ("output_pca", "weight_svd")
    }
    return {**found, "remark": ", ".join(f"{name} {value:.4f}" for name, value in found.items())}


def rows_needed(bench):
    """low rank, rows: errors on test rows at rank 16 by the number of rows of the fit, columns standardised or not.

    Standardised columns of pixels that are almost always zero have rare large values, which few rows do not show.
    """
    for standardize in (False, True):
        for n_rows in (50, 300, 1000):
            name = f"{n_rows} rows{', standardised' if standardize else ''}"
            row = bench.measure(name, few_rows, n_rows, standardize)
            if not standardize:
                bench.claim(f"{name}: error against the weight's SVD", row.output_pca, row.weight_svd, at_most=1.0)


CASES = [one_rank, budgets, latencies, rows_needed]
