"""Cases of `LDUAdapter`."""

import time
from functools import partial
from itertools import product
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.adaptation.tucker import SEEDS, fitted, stored, summary

LAYERS = ("wide1", "wide2", "output")


def on_moved_digits(folder, task, how, params=None, n_rows=100):
    """Accuracy on digits with other gains, or moved by a pixel, of what is made of the network in some way."""
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank import adapt

    right, seconds, numbers, nbytes = [], [], None, None
    params = params or {}
    for seed in range(SEEDS):
        _, B, _, b = nets.sources(seed)
        net = nets.stored(folder, nets.wide, 40, seed)
        moved = nets.gained(B, seed) if task == "gain" else nets.shifted(B)
        S, T, s, t = nets.few(moved, b, n_rows, seed)
        if how == "before":
            right.append(net.score(T, t))
        elif how.endswith("Adapter"):
            model = getattr(adapt, how)(FrozenEstimator(net), random_state=seed, **params)
            model, spent = fitted(model, S, s)
            seconds.append(spent)
            right.append(model.score(T, t))
            numbers, nbytes = model.n_trainable_parameters_, stored(model)
        else:
            module, spent, numbers = nets.baseline(net, how, S, s, seed, layers=LAYERS, **params)
            seconds.append(spent)
            right.append(nets.accuracy(module, T, t))
    return summary(right, seconds, numbers, nbytes)


def _ask(bench, folder, name, *args):
    return bench.measure(name, on_moved_digits, folder, *args)


def of_task(bench, task):
    """Measure all ways on one task."""
    with TemporaryDirectory() as folder:
        return _of_task(partial(_ask, bench, folder), task)


def _of_task(ask, task):
    found = {
        "before": ask("the network as it is", task, "before"),
        "head": ask("head alone", task, "head"),
        "gains": ask("a gain for each output", task, "gains"),
        "lora": ask("LoRA, rank 1", task, "LoRA"),
        "lora and head": ask("LoRA, rank 1, and head", task, "LoRA and head"),
        "full": ask("full fine-tuning", task, "full", {"rate": 2e-3}),
        "ours": ask("LDUAdapter, head kept", task, "LDUAdapter", {"head": "keep"}),
        "ours and head": ask("LDUAdapter", task, "LDUAdapter"),
        "tucker": ask("TuckerAdapter, rank 1, head kept", task, "TuckerAdapter",
                      {"head": "keep", "rank": 1}),
    }  # fmt: skip
    return {name: row.accuracy for name, row in found.items()}


def gain(bench):
    """LDUAdapter, gains: a network of 64-128-128-10 units, each pixel times a number from 0.1 to 1.9, 100 images."""
    m = of_task(bench, "gain")
    bench.claim("accuracy, head kept", m["ours"], at_least=0.915)
    bench.claim("below the head alone by", m["head"] - m["ours"], at_most=0.015)
    bench.note("against LoRA of rank 1", f"{m['ours'] - m['lora']:+.3f} with a third of its numbers")


def shift(bench):
    """LDUAdapter, a shift: the same network, images moved to the right by one pixel, 100 images."""
    m = of_task(bench, "shift")
    bench.claim("accuracy, head kept", m["ours"], at_least=0.785)
    bench.claim("below the head alone by", m["head"] - m["ours"], at_most=0.02)
    bench.claim("above a gain for each output", m["ours"] - m["gains"], at_least=0.08)
    bench.claim("above the head alone, head trained", m["ours and head"] - m["head"], at_least=0.015)
    bench.note("against LoRA of rank 1", f"{m['ours'] - m['lora']:+.3f} with a third of its numbers")


def few_rows(bench):
    """LDUAdapter, few images: the shift with 20 and 400 images; no claim is made."""
    ways = (
        ("head alone", "head", {}),
        ("LoRA, rank 1", "LoRA", {}),
        ("full fine-tuning", "full", {"rate": 2e-3}),
        ("LDUAdapter, head kept", "LDUAdapter", {"head": "keep"}),
        ("LDUAdapter", "LDUAdapter", {}),
    )
    with TemporaryDirectory() as folder:
        for n_rows, (name, how, params) in product((20, 400), ways):
            _ask(bench, folder, f"{name}, {n_rows}", "shift", how, params, n_rows)


def starts(bench):
    """LDUAdapter, starts and pivots: the shift, 100 images, head kept; no claim is made."""
    ways = {
        f"diag_init {start}": {"diag_init": start} for start in ("lu", "uniform", "normal", "constant", "ones", "zeros")
    }
    ways |= {
        "diag_init ones, not exact": {"diag_init": "ones", "exact_start": False},
        "no scale": {"train_scale": False},
    }
    for rank, pivoting in product((None, 16), ("row", "complete")):
        ways[f"{rank or 'all'} pivots, {pivoting} pivoting"] = {"rank": rank, "pivoting": pivoting}
    with TemporaryDirectory() as folder:
        for name, params in ways.items():
            _ask(bench, folder, name, "shift", "LDUAdapter", {"head": "keep", **params})


def without_head(folder, how):
    """Accuracy on turned digits without training the head."""
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank import adapt

    right, seconds = [], []
    for seed in range(SEEDS):
        _, B, _, b = nets.sources(seed)
        S, T, s, t = nets.few(nets.turned(B), b, 200, seed)
        net = nets.stored(folder, nets.Images, 30, seed)
        if how == "before":
            right.append(net.score(T, t))
            continue
        model = getattr(adapt, how)(FrozenEstimator(net), exclude="conv1", head="keep", random_state=seed)
        model, spent = fitted(model, S, s)
        right.append(model.score(T, t))
        seconds.append(spent)
    return summary(right, seconds, None if how == "before" else model.n_trainable_parameters_)


def limits(bench):
    """LDUAdapter, limits: the convolutions and images of the turned digits, head kept."""
    with TemporaryDirectory() as folder:
        before = bench.measure("the network as it is", without_head, folder, "before")
        ours, tucker = (bench.measure(name, without_head, folder, name) for name in ("LDUAdapter", "TuckerAdapter"))
    bench.claim("above the network as it is", ours.accuracy - before.accuracy, at_least=0.1)
    bench.note("against TuckerAdapter", f"{ours.accuracy - tucker.accuracy:+.3f}: such a change is out of its reach")


def of_width(width, how):
    """Seconds of an epoch of 1000 rows, and of the decomposition."""
    import torch
    from sklearn.frozen import FrozenEstimator

    from benchmarks.adaptation import nets
    from sklowrank.adapt import LDUAdapter

    g = np.random.default_rng(0)
    X, y = g.normal(size=(1000, 64)).astype(np.float32), np.arange(1000) % 10
    net = nets.trained(partial(nets.wide, width), X, y, 0, 1)
    if how == "full":
        epochs, nets.EPOCHS = nets.EPOCHS, 3
        seconds = nets.baseline(net, "full", X, y, 0)[1] / 3
        nets.EPOCHS = epochs
        return {"seconds": seconds}
    torch.set_num_threads(1)
    model = LDUAdapter(FrozenEstimator(net), pivoting=how, head="keep", random_state=0)
    start = time.process_time()
    model.set_params(max_iter=0).fit(X, y)
    without = time.process_time() - start
    start = time.process_time()
    model.set_params(max_iter=3).fit(X, y)
    epoch = (time.process_time() - start - without) / 3
    return {"seconds": epoch, "remark": f"decompositions and the rest of a fit without epochs {without:.2f} s"}


def widths(bench):
    """LDUAdapter, seconds: an epoch of 1000 rows in batches of 64, networks of two hidden layers; no claim is made."""
    for width in (128, 512, 1024):
        bench.measure(f"full fine-tuning, width {width}", of_width, width, "full")
        for pivoting in ("row", "complete"):
            bench.measure(f"LDUAdapter, {pivoting} pivoting, width {width}", of_width, width, pivoting)


CASES = [gain, shift, few_rows, starts, limits, widths]
