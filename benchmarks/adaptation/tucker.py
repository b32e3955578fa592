"""Cases of `TuckerAdapter`."""

import os
import pickle
import time
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np

SEEDS = 3
LAYERS = {"layers": ("conv2d",), "exclude": "conv1"}


def summary(right, seconds=(), numbers=None, nbytes=None):
    """Mean accuracy and seconds, and what is trained and stored, in words."""
    remark = f"accuracy {np.mean(right):.3f} ({min(right):.3f} to {max(right):.3f})"
    remark += "" if numbers is None else f", {numbers:,} numbers trained"
    remark += "" if nbytes is None else f", {nbytes:,} bytes stored"
    times = {"seconds": float(np.mean(seconds))} if len(seconds) else {}
    return {"accuracy": float(np.mean(right)), "error": 1 - float(np.mean(right)), "remark": remark, **times}


def fitted(model, S, s):
    """Fit an adapter; return it and the seconds."""
    start = time.process_time()
    model.fit(S, s)
    return model, time.process_time() - start


def stored(model):
    """Bytes of an adapter in a file."""
    return sum(value.nbytes for value in model.get_adapter().values())


def on_turned_digits(folder, how, n_rows=200, params=None):
    """Accuracy on turned digits of what is made of the network in some way."""
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank.adapt import TuckerAdapter

    right, seconds, numbers, nbytes = [], [], None, None
    params = params or {}
    for seed in range(SEEDS):
        _, B, _, b = nets.sources(seed)
        S, T, s, t = nets.few(nets.turned(B), b, n_rows, seed)
        if how == "fresh":
            right.append(nets.trained(nets.Images, S, s, seed, nets.EPOCHS).score(T, t))
            continue
        net = nets.stored(folder, nets.Images, 30, seed)
        if how == "before":
            right.append(net.score(T, t))
        elif how == "ours":
            device = os.environ["SKLOWRANK_BENCH_DEVICE"]
            model = TuckerAdapter(FrozenEstimator(net), random_state=seed, device=device, **LAYERS, **params)
            model, spent = fitted(model, S, s)
            seconds.append(spent)
            right.append(model.score(T, t))
            numbers, nbytes = model.n_trainable_parameters_, stored(model)
        else:
            module, spent, numbers = nets.baseline(net, how, S, s, seed, layers=("conv2", "conv3"), **params)
            seconds.append(spent)
            right.append(nets.accuracy(module, T, t))
    return summary(right, seconds, numbers, nbytes)


def turned_digits(bench):
    """TuckerAdapter, turned digits: a network of three convolutions, 200 images turned by 90 degrees and inverted, 60
    epochs; updates of the second and third convolution, the head trained.

    Flattened LoRA of rank 4 has as many numbers as Tucker ranks of (8, 8, 3, 3). Full fine-tuning at a rate of 2e-3.
    """
    with TemporaryDirectory() as folder:
        _turned_digits(bench, partial(_ask, bench, folder))


def _ask(bench, folder, name, *args):
    return bench.measure(name, on_turned_digits, folder, *args)


def _turned_digits(bench, ask):
    ask("the network as it is", "before")
    head = ask("head alone", "head", 200, {"rate": 1e-2})
    flat = [
        ask(f"flattened LoRA, rank 4, rate {rate:g}", "LoRA and head", 200, {"rank": 4, "rate": rate})
        for rate in (5e-3, 1e-2, 2e-2)
    ]
    full = ask("full fine-tuning", "full", 200, {"rate": 2e-3})
    fresh = ask("a new network on the 200 images", "fresh")
    ours = ask("TuckerAdapter, rate 0.02", "ours", 200, {"learning_rate": 2e-2})
    usual = ask("TuckerAdapter", "ours", 200, {})
    small = {"rank": 4, "kernel_rank": 2}
    ask("TuckerAdapter, rank 4, kernels 2 x 2", "ours", 200, small)
    ask("TuckerAdapter, head kept", "ours", 200, {"head": "keep"})
    best = max(row.accuracy for row in flat)
    bench.claim("accuracy, rate 0.02", ours.accuracy, at_least=0.895)
    bench.claim("accuracy", usual.accuracy, at_least=0.89)
    bench.claim("above the best flattened LoRA, rate 0.02", ours.accuracy - best, at_least=0.03)
    bench.claim("above the best flattened LoRA", usual.accuracy - best, at_least=0.03)
    bench.claim("above the head alone, rate 0.02", ours.accuracy - head.accuracy, at_least=0.08)
    bench.claim("below full fine-tuning by, rate 0.02", full.accuracy - ours.accuracy, at_most=0.02)
    bench.note("against a new network", f"{usual.accuracy - fresh.accuracy:+.3f}: rows so different owe little to it")


def rows(bench):
    """TuckerAdapter, numbers of rows: the same with 30 and 500 images; no claim is made."""
    with TemporaryDirectory() as folder:
        ask = partial(_ask, bench, folder)
        for n_rows in (30, 500):
            ask(f"head alone, {n_rows}", "head", n_rows, {"rate": 1e-2})
            ask(f"full fine-tuning, {n_rows}", "full", n_rows, {"rate": 2e-3})
            ask(f"a new network, {n_rows}", "fresh", n_rows)
            ask(f"TuckerAdapter, {n_rows}", "ours", n_rows)


def new_labels(folder):
    """Accuracy for three groups of digits that the network did not know."""
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank.adapt import TuckerAdapter

    right, seconds = [], []
    for seed in range(SEEDS):
        _, B, _, b = nets.sources(seed)
        names = np.array(["low", "middle", "high"])[np.digitize(b, [3, 7])]
        S, T, s, t = nets.few(nets.turned(B), names, 200, seed)
        net = nets.stored(folder, nets.Images, 30, seed)
        model, spent = fitted(TuckerAdapter(FrozenEstimator(net), random_state=seed, **LAYERS), S, s)
        right.append(model.score(T, t))
        seconds.append(spent)
    return summary(right, seconds, model.n_trainable_parameters_, stored(model))


def labels(bench):
    """TuckerAdapter, new labels: turned digits in three groups, 200 images; the head is reset."""
    with TemporaryDirectory() as folder:
        bench.claim("accuracy", bench.measure("TuckerAdapter", new_labels, folder).accuracy, at_least=0.80)


def planted(rank):
    """R2 on new rows, and the relative error of the update, for a linear map of 40 x 30 moved by one of rank 3."""
    import torch
    from sklearn.frozen import FrozenEstimator
    from skorch import NeuralNetRegressor
    from torch import nn

    from sklowrank.adapt import TuckerAdapter

    score, error, seconds = [], [], []
    for seed in range(SEEDS):
        g = np.random.default_rng(seed)
        X = g.normal(size=(900, 40)).astype(np.float32)
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(40, 30, bias=False), nn.Identity())
        net = NeuralNetRegressor(module, max_epochs=1, lr=1e-9, train_split=None, verbose=0)
        net.fit(X, np.zeros((900, 30), dtype=np.float32))
        left, right = (np.linalg.qr(g.normal(size=(n, 3)))[0] for n in (30, 40))
        moved = 2 * left @ g.normal(size=(3, 3)) @ right.T
        before = net.module_[0].weight.detach().numpy().astype(float)
        Y = (X @ (before + moved).T).astype(np.float32)
        model = TuckerAdapter(FrozenEstimator(net), rank=rank, head="keep", max_iter=200, random_state=seed)
        model, spent = fitted(model, X[:500], Y[:500])
        found = model.network()[0].weight.detach().numpy() - before
        score.append(model.score(X[500:], Y[500:]))
        error.append(np.linalg.norm(found - moved) / np.linalg.norm(moved))
        seconds.append(spent)
    remark = f"R2 {np.mean(score):.4f} ({min(score):.4f} to {max(score):.4f}) on new rows"
    return {"error": float(np.mean(error)), "r2": float(np.mean(score)), "seconds": np.mean(seconds), "remark": remark}


def planted_update(bench):
    """TuckerAdapter, planted update: a linear map of 40 inputs and 30 outputs moved by one of rank 3, 500 rows, 200
    epochs; the error is that of the update, relative."""
    for rank, least in ((3, 0.95), (6, 0.99)):
        bench.claim(f"R2, rank {rank}", bench.measure(f"rank {rank}", planted, rank).r2, at_least=least)


def life():
    """Bytes and seconds of what is done with adapters of one network; predictions of 10 000 rows."""
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank.adapt import TuckerAdapter

    A, B, a, b = nets.sources(0)
    S, T, s, _ = nets.few(nets.turned(B), b, 200, 0)
    net = nets.trained(nets.Images, A, a, 0, 30)
    frozen, many = FrozenEstimator(net), np.tile(T, (12, 1))[:10_000]
    model = TuckerAdapter(frozen, random_state=0, **LAYERS).fit(S, s)
    grown = len(pickle.dumps(model)) - len(pickle.dumps(TuckerAdapter(frozen, random_state=0, **LAYERS)))
    merged, state = model.merge(), model.get_adapter()

    def seconds(call):
        times = []
        for _ in range(5):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return min(times)

    plain, after = seconds(lambda: net.predict(many)), seconds(lambda: merged.predict(many))
    swap = seconds(lambda: model.set_adapter(state).predict(T[:1]))
    same = float(np.abs(merged.predict_proba(T) - model.predict_proba(T)).max())
    network = sum(p.numel() * p.element_size() for p in net.module_.parameters())
    remark = (
        f"network {network:,} bytes, adapter and head {stored(model):,}, pickle grown by {grown:,}; exchange and first "
        f"prediction {1e3 * swap:.1f} ms; prediction {after:.3f} s, of the network alone {plain:.3f} s"
    )
    return {"seconds": after, "ratio": after / plain, "same": same, "grown": grown / stored(model), "remark": remark}


def stored_and_merged(bench):
    """TuckerAdapter, stored and merged: bytes, and seconds of predictions for 10 000 images."""
    found = bench.measure("TuckerAdapter", life)
    bench.claim("merged answers like the adapter", found.same, at_most=1e-5)
    bench.claim("pickle grown by the fit over the bytes of adapter and head", found.grown, at_most=2.5)
    bench.claim("prediction of the merged network over that of the network", found.ratio, at_most=1.2)


CASES = [turned_digits, rows, labels, planted_update, stored_and_merged]
