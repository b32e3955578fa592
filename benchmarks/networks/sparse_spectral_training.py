"""Sparse spectral training: `SparseSpectralTraining` against plain training and an adapter of the same rank."""

import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from benchmarks.harness import peak
from sklowrank._nets.layers import mlp
from sklowrank.neural import NetworkRegressor, SparseSpectralTraining
from sklowrank.neural._sparse_spectral_layer import SpectralLinear

WIDTH, DEPTH, BATCH = 1024, 12, 64
SIDE, SIDE_RANK, ROWS = 48, 4, 20_000


# Networks


class Adapter(nn.Module):
    """A frozen linear layer and a change of fixed rank, as LoRA starts it: nothing is changed at first."""

    def __init__(self, layer, rank):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.layer.bias.requires_grad_()
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + (x @ self.down.T) @ self.up.T


def network(kind, sizes, seed, rank, *, last=True):
    """A multilayer perceptron from a seed and the callbacks to train it; `last`: whether its last layer is plain."""
    torch.manual_seed(seed)
    module = mlp((sizes[0],), sizes[-1], torch.Generator().manual_seed(seed), hidden_layer_sizes=sizes[1:-1])
    if kind == "adapter":
        layers = [i for i, layer in enumerate(module) if isinstance(layer, nn.Linear)]
        for i in layers[: len(layers) - last]:
            module[i] = Adapter(module[i], rank)
    rules = {"spectral": {}, "top": {"sampling": "top"}, "uniform": {"sampling": "uniform"}, "scaled gradient": {}}
    if kind not in rules:
        return module, []
    settings = {**rules[kind], "skip_last": last, "enhanced_gradient": kind != "scaled gradient"}
    if not last:
        settings["iteration_length"] = 25
    return module, [("rule", SparseSpectralTraining(rank, **settings))]


class Watch(Callback):
    """Numbers in the state of the optimizer, at most, what the factors are before each step, and processor seconds."""

    def __init__(self):
        self.state, self.held, self.lowest, self.norms, self.times, self.orthogonal, self.change = (
            0,
            0,
            np.inf,
            0.0,
            [],
            0.0,
            0.0,
        )

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if not training:
            return
        self.times.append(time.process_time())
        kept = [v for state in net.optimizer_.state.values() for v in state.values() if torch.is_tensor(v) and v.ndim]
        self.state = max(self.state, sum(v.numel() for v in kept))
        parts = list(net.module_.state_dict().values())
        gradients = [p for p in net.module_.parameters() if p.requires_grad]
        self.held = max(self.held, self.state + sum(v.numel() for v in parts + gradients))


class Invariants(Watch):
    """What holds of the factors, before each step."""

    def on_train_begin(self, net, **kwargs):
        self.original = SpectralLinear.decompose
        watch, original = self, self.original

        def decompose(layer, W):
            x = torch.randn(64, W.shape[1])
            before = layer(x).detach()
            original(layer, W)
            if before.abs().sum() > 0:  # a new layer has no product yet
                watch.change = max(watch.change, (layer(x) - before).abs().max().item())
            for rows in layer.decomposition()[::2]:
                gap = (rows @ rows.T - torch.eye(len(rows))).abs().max().item()
                watch.orthogonal = max(watch.orthogonal, gap)

        SpectralLinear.decompose = decompose

    def on_train_end(self, net, **kwargs):
        SpectralLinear.decompose = self.original

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        super().on_batch_begin(net, batch, training)
        for layer in net.module_.modules():
            if isinstance(layer, SpectralLinear):
                U, s, V = layer.decomposition()
                self.lowest = min(self.lowest, s.min().item())
                norms = torch.cat([U.norm(dim=1), V.norm(dim=1)])
                self.norms = max(self.norms, (norms - 1).abs().max().item())


# What is measured


def rotation(kind, epochs, seed=0):
    """Relative error of a learnt 48 x 48 rotation, 313 steps of 64 rows an epoch."""
    rng = np.random.default_rng(0)
    target = np.linalg.qr(rng.standard_normal((SIDE, SIDE)))[0]
    X = rng.standard_normal((ROWS, SIDE)).astype(np.float32)
    module, callbacks = network(kind, (SIDE, SIDE), seed, SIDE_RANK, last=False)
    start = (rng.standard_normal((SIDE, SIDE)) / SIDE**0.5).astype(np.float32)
    first = module[0].layer if kind == "adapter" else module[0]
    first.weight.data.copy_(torch.from_numpy(start))
    nearest = np.linalg.norm(np.linalg.svd(target - start, compute_uv=False)[SIDE_RANK:]) / SIDE**0.5
    steps = epochs * -(-ROWS // BATCH)
    rates = LRScheduler("CosineAnnealingLR", T_max=steps, step_every="batch")
    net = NeuralNetRegressor(
        module,
        callbacks=[("rates", rates), *callbacks],
        optimizer=torch.optim.Adam,
        lr=0.01,
        batch_size=BATCH,
        max_epochs=epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    begin = time.perf_counter()
    net.fit(X, (X @ target.T).astype(np.float32))
    seconds = time.perf_counter() - begin
    with torch.inference_mode():
        W = (net.module_(torch.eye(SIDE)) - net.module_(torch.zeros(1, SIDE))).numpy().T
    error = np.linalg.norm(W - target) / SIDE**0.5
    return {"error": float(error), "nearest": float(nearest), "seconds": seconds, "remark": f"{steps} steps"}


def digits(kind, rank, seeds=3, watch=Watch):
    """Accuracy on digits, hidden layers (128, 128), 40 epochs of Adam with 1e-3 and batches of 64."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16 - 0.3).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    right, seconds = [], 0.0
    for seed in range(seeds):
        module, callbacks = network(kind, (64, 128, 128, 10), seed, rank)
        look = watch()
        net = NeuralNetClassifier(
            module,
            criterion=nn.CrossEntropyLoss,
            callbacks=[("watch", look), *callbacks],
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=BATCH,
            max_epochs=40,
            train_split=None,
            iterator_train__shuffle=True,
            verbose=0,
        )
        begin = time.perf_counter()
        net.fit(X_train, y_train)
        seconds += (time.perf_counter() - begin) / seeds
        right.append(net.score(X_test, y_test))
    remark = f"accuracy {np.mean(right):.4f}, from {min(right):.4f}; {look.state:,} numbers in the optimizer's state"
    found = {"score": float(np.mean(right)), "lowest": min(right), "state": look.state, "seconds": seconds}
    return {**found, "remark": remark, **{name: getattr(look, name) for name in ("norms", "orthogonal", "change")}} | {
        "low": look.lowest
    }


def step(kind, rank):
    """Processor seconds of a step and numbers of the optimizer's state, with twelve layers of 1,024 x 1,024."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((25 * BATCH, WIDTH)).astype(np.float32)
    module, callbacks = network(kind, (WIDTH,) * (DEPTH + 1), 0, rank, last=False)
    watch = Watch()
    net = NeuralNetRegressor(
        module,
        callbacks=[("watch", watch), *callbacks],
        optimizer=torch.optim.Adam,
        batch_size=BATCH,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).initialize()
    begin = time.perf_counter()
    net.partial_fit(X, X)
    whole = time.perf_counter() - begin
    remark = f"{watch.state:,} numbers in the optimizer's state, {watch.held:,} with weights and gradients"
    seconds = float(np.median(np.diff(watch.times)))
    return {"seconds": seconds, "state": watch.state, "held": watch.held, "whole": whole, "remark": remark}


def memory(kind):
    """Memory in MB of a fit of one epoch of the same network by `NetworkRegressor`, weights and snapshots included."""
    X = np.random.default_rng(0).standard_normal((25 * BATCH, WIDTH)).astype(np.float32)
    rule = SparseSpectralTraining(8, skip_last=False) if kind == "spectral" else None
    model = NetworkRegressor((WIDTH,) * (DEPTH - 1), training=rule, max_iter=1, tol=0, random_state=0, device="cpu")
    before = peak()
    model.fit(X, X)
    return {"more": peak() - before, "remark": f"{peak() - before:.0f} MB more than before the fit"}


# Cases


def reach(bench):
    """Reach: a 48 x 48 rotation from a random start, one linear layer, rank 4, 20,000 rows in batches of 64"""
    for seed in range(3):
        bench.measure(f"spectral, 10 epochs, seed {seed}", rotation, "spectral", 10, seed)
    ours = [bench.measure(f"spectral, 19 epochs, seed {seed}", rotation, "spectral", 19, seed) for seed in range(3)]
    for kind in ("top", "scaled gradient", "plain"):
        bench.measure(f"{kind}, 19 epochs", rotation, kind, 19)
    adapter = bench.measure("adapter, 19 epochs", rotation, "adapter", 19)
    worst = max(run.error for run in ours)
    bench.claim("relative error after 5,947 steps, largest of three seeds", worst, at_most=0.02)
    bench.claim("error of the best change of rank 4 from the same start", adapter.nearest, at_least=1.2)
    bench.claim("error against the adapter's", worst, adapter.error, at_most=0.1)


def digits_accuracy(bench):
    """Digits with spectral layers: hidden layers (128, 128), 40 epochs, mean of three seeds"""
    plain = bench.measure("plain", digits, "plain", 8)
    ours = {rank: bench.measure(f"spectral, rank {rank}", digits, "spectral", rank) for rank in (2, 8)}
    for kind in ("adapter", "top", "uniform", "scaled gradient"):
        bench.measure(f"{kind}, rank 8", digits, kind, 8)
    bench.measure("adapter, rank 2", digits, "adapter", 2)
    bench.claim("accuracy, rank 8, lowest of the seeds", ours[8].lowest, at_least=0.955)
    bench.claim("points of accuracy behind plain training, rank 8", plain.score - ours[8].score, at_most=0.025)
    bench.claim(
        "numbers in the optimizer's state against plain training, rank 8", ours[8].state, plain.state, at_most=0.25
    )


def invariants(bench):
    """Invariants of spectral layers: the same training, looked at before each step, and at each decomposition"""
    ours = bench.measure("spectral, rank 8", digits, "spectral", 8, 1, Invariants)
    bench.claim("lowest singular value", ours.low, at_least=0)
    bench.claim("norms of vectors less 1", ours.norms, at_most=1e-5)
    bench.claim("U'U and V'V less the identity, after a decomposition", ours.orthogonal, at_most=1e-4)
    bench.claim("change of outputs by a decomposition", ours.change, at_most=1e-5)


def wide_layers(bench):
    """Wide spectral layers: steps of 64 rows with twelve layers of width 1,024, Adam"""
    plain = bench.measure("plain", step, "plain", 0)
    ours = {rank: bench.measure(f"spectral, rank {rank}", step, "spectral", rank) for rank in (8, 64)}
    bench.measure("adapter, rank 8", step, "adapter", 8)
    expected = 2 * DEPTH * (8 * 2 * WIDTH + WIDTH + WIDTH)  # of vectors, values and biases, two moments of each
    bench.claim("numbers in the optimizer's state, rank 8", ours[8].state, expected, at_most=1)
    bench.claim("numbers against plain training, rank 8", ours[8].state, plain.state, at_most=0.02)
    held = "weights, gradients and optimizer's state against plain training, rank 8"
    bench.claim(held, ours[8].held, plain.held, at_most=0.55)
    peaks = {kind: bench.measure(f"{kind}, memory of a fit", memory, kind).more for kind in ("plain", "spectral")}
    bench.claim("peak memory of a fit against plain training, rank 8", peaks["spectral"], peaks["plain"], at_most=1)
    bench.claim("seconds of a step against plain training, rank 8", ours[8].seconds, plain.seconds, at_most=1.5)
    bench.note(
        "decompositions",
        f"{ours[8].whole - 25 * ours[8].seconds:.1f} seconds for the first and the last of twelve layers",
    )


CASES = [reach, digits_accuracy, invariants, wide_layers]
