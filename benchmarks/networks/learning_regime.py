"""`LearningRegime`: whether a low rank of the start lets hidden layers learn features, and what measuring costs."""

import os
import time
from functools import partial

import numpy as np
from sklearn.preprocessing import scale

from benchmarks.data import bundled
from benchmarks.harness import clock, quietly

HIDDEN = (200, 200)


# Networks


def until(loss):
    """A callback that stops at a training loss: starts are compared at the same one."""
    from skorch.callbacks import EarlyStopping

    class AtLoss(EarlyStopping):
        def on_epoch_end(self, net, **kwargs):
            if net.history[-1]["train_loss"] < loss:
                self.misses_ = self.patience
                raise KeyboardInterrupt

    return AtLoss()


def low_rank_module(rank, gain=1.25):
    """A network of which the weight between the hidden layers is drawn with a gain, and has a rank at equal norm."""
    import torch
    from torch import nn

    from sklowrank._nets.layers import low_rank_start

    sizes = nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    with torch.no_grad():
        sizes[2].weight.copy_(low_rank_start(gain * torch.randn(200, 200) / 200**0.5, rank))
    return nn.Sequential(*sizes)


def scaled_module(gain):
    """A network whose outputs are multiplied by a gain."""
    from torch import nn

    class Scaled(nn.Sequential):
        def forward(self, x):
            return gain * super().forward(x)

    return Scaled(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def trained(seed, *, learning_rate=0.01, module=None, max_iter=300, loss=0.05, layers=("2",), **params):
    """The regime of a network that is trained on the standardised digits until a training loss."""
    import torch

    from sklowrank.inspection import LearningRegime
    from sklowrank.neural import NetworkClassifier

    X, y = bundled("digits")
    net_params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "callbacks": [until(loss)]}
    model = NetworkClassifier(
        HIDDEN,
        module=module,
        net_params=net_params,
        learning_rate=learning_rate,
        batch_size=64,
        max_iter=max_iter,
        tol=0,
        device=os.environ["SKLOWRANK_BENCH_DEVICE"],
        random_state=seed,
        **params,
    )
    regime = LearningRegime(model, probe_size=100, layers=layers, random_state=0)
    return quietly(regime.fit, scale(X), y)


# Measured functions: each runs in a fresh process


def by_rank(rank, seeds, drawn):
    """Alignments of the middle weight, means over seeds: `drawn` with gain 1.25, or by `init_rank` of the estimator."""
    how = {"module": partial(low_rank_module, rank)} if drawn else {"init_rank": rank}
    found, seconds = clock(lambda: [trained(seed, **how) for seed in range(seeds)], repeats=1)
    norms = [r.weight_change_["2"] / r.relative_weight_change_["2"] for r in found]
    changes = [r.weight_change_["2"] for r in found]
    figures = {
        "kernel": np.mean([r.kernel_alignment_ for r in found]),
        "features": np.mean([r.representation_alignment_["2"] for r in found]),
        "norm": np.mean(norms),
        "loss": max(r.history_["train_loss"][-1] for r in found),
        "seconds": seconds,
    }
    remark = f"KA {figures['kernel']:.3f}, RA {figures['features']:.3f}, weight change {np.mean(changes):.2f}"
    return {**figures, "remark": f"{remark}, norm of the start {figures['norm']:.2f}, loss {figures['loss']:.3f}"}


def by_gain(gain, learning_rate, seeds):
    """Alignment of the kernel of all weights for an output that is multiplied by a gain."""
    how = {"module": partial(scaled_module, gain), "learning_rate": learning_rate, "layers": "all"}
    found = [trained(seed, **how) for seed in range(seeds)]
    kernel, change = (
        np.mean(part) for part in zip(*((r.kernel_alignment_, r.relative_weight_change_["2"]) for r in found))
    )
    losses = [r.history_["train_loss"][-1] for r in found]
    epochs = [r.history_["epoch"][-1] for r in found]
    remark = f"KA {kernel:.3f}, relative weight change {change:.3f}, loss {max(losses):.3f} after {epochs} epochs"
    return {"kernel": kernel, "remark": remark}


def frozen():
    """What is off one or zero where nothing is trained; and of the last layer's kernel where it alone is trained."""
    still = trained(0, learning_rate=0.0, max_iter=2, layers="all")
    off = [abs(1 - still.kernel_alignment_), *(abs(1 - a) for a in still.representation_alignment_.values())]
    off += [abs(1 - share) for share in still.sign_similarity_.values()]
    groups = {"optimizer__param_groups": [("[02]*", {"lr": 0.0})]}
    last = last_layer_alone(groups)
    change = max(still.weight_change_.values())
    return {
        "error": max(off),
        "change": change,
        "last": abs(1 - last.kernel_alignment_),
        "moved": last.weight_change_["4"],
    }


def last_layer_alone(groups):
    from sklowrank.inspection import LearningRegime
    from sklowrank.neural import NetworkClassifier

    X, y = bundled("digits")
    model = NetworkClassifier(HIDDEN, net_params=groups, max_iter=2, tol=0, random_state=0, device="cpu")
    return quietly(LearningRegime(model, probe_size=100, layers=["4"], random_state=0).fit, scale(X), y)


def kernel_of(method, n_rows, width):
    """The tangent kernel of a network with ten outputs: by products or by torch.func, or how far both differ."""
    import torch
    from torch import nn
    from torch.func import functional_call, jacrev, vmap

    from sklowrank.metrics import tangent_kernel

    torch.manual_seed(0)
    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    net, X = net.to(device), torch.randn(n_rows, 64).to(device)

    def recipe():
        weights = {name: p.detach() for name, p in net.named_parameters()}
        by_row = vmap(jacrev(lambda w, x: functional_call(net, w, (x[None],))[0]), (None, 0))
        parts = [part.flatten(0, 1).flatten(1) for part in by_row(weights, X).values()]
        return sum(J @ J.T for J in parts)

    if method == "difference":
        expected = recipe().double()
        return {"error": (tangent_kernel(net, X) - expected).norm() / expected.norm()}
    return {"seconds": clock((lambda: tangent_kernel(net, X)) if method == "products" else recipe)[1]}


def fit_seconds(measure):
    """Processor seconds of a fit on the digits alone, or with what measures it: the least of four."""
    from sklowrank.inspection import LearningRegime
    from sklowrank.neural import NetworkClassifier

    X, y = bundled("digits")
    model = NetworkClassifier(max_iter=50, tol=0, random_state=0, device=os.environ["SKLOWRANK_BENCH_DEVICE"])
    model = model if measure is None else LearningRegime(model, random_state=0, **measure)
    times = []
    for _ in range(4):
        start = time.process_time()
        quietly(model.fit, X, y)
        times.append(time.process_time() - start)
    return {"seconds": min(times)}


# Cases


def ranks(bench):
    """rank of the start: digits, network 64-200-200-10, SGD to a training loss of 0.05, kernel of the middle weight"""
    for drawn, how in ((True, "gain 1.25"), (False, "init_rank")):
        found = {r: bench.measure(f"{how}, rank {r}", by_rank, r, 3, drawn) for r in (1, 5, 20, 200)}
        kernels = [found[r].kernel for r in found]
        bench.claim(f"{how}: KA at rank 200 minus KA at rank 1", kernels[-1] - kernels[0], at_least=0.08)
        bench.claim(f"{how}: smallest rise of KA from rank to rank", min(np.diff(kernels)), at_least=0)
        bench.claim(f"{how}: RA at rank 200", found[200].features, at_least=0.88)
        bench.claim(f"{how}: RA at rank 1", found[1].features, at_most=0.70)
        norms = [found[r].norm for r in found]
        bench.claim(
            f"{how}: norms of the starts, largest over smallest less 1", max(norms) / min(norms) - 1, at_most=1e-5
        )
        bench.claim(f"{how}: training loss at the end", max(found[r].loss for r in found), at_most=0.05)


def scales(bench):
    """scale of the output: digits, the output multiplied by 10 and the learning rate divided by 100"""
    plain = bench.measure("gain 1, learning rate 0.01", by_gain, 1, 1e-2, 2)
    large = bench.measure("gain 10, learning rate 0.0001", by_gain, 10, 1e-4, 2)
    bench.claim("KA at gain 10 minus KA at gain 1", large.kernel - plain.kernel, at_least=0.05)


def lazy(bench):
    """networks that are lazy by construction: nothing trained, and the last layer alone trained"""
    found = bench.measure("LearningRegime", frozen)
    bench.claim("nothing trained: KA, RA, signs off 1", found.error, at_most=1e-6)
    bench.claim("nothing trained: weight change", found.change, at_most=0)
    bench.claim("last layer trained: KA of the last layer off 1", found.last, at_most=1e-6)
    bench.claim("last layer trained: its weight change", found.moved, at_least=0.1)


def kernels(bench):
    """tangent kernel: 200 rows, ten outputs, two hidden layers, against the recipe of torch.func"""
    apart = bench.measure("tangent_kernel, off vmap(jacrev)", kernel_of, "difference", 200, 200)
    bench.claim("relative difference of the kernels", apart.error, at_most=1e-5)
    for width in (200, 512):
        ours = bench.measure(f"tangent_kernel, width {width}", kernel_of, "products", 200, width)
        theirs = bench.measure(f"vmap(jacrev), width {width}", kernel_of, "recipe", 200, width)
        bench.claim(f"width {width}: seconds", ours.seconds, theirs.seconds, at_least=2)
        bench.claim(f"width {width}: peak memory", ours.peak, theirs.peak, at_most=1)


def cost(bench):
    """cost of measuring: a fit of 50 epochs on the digits, hidden layers of 128, 200 probe rows"""
    plain = bench.measure("NetworkClassifier", fit_seconds, None)
    full = bench.measure("LearningRegime", fit_seconds, {})
    of_sum = bench.measure("LearningRegime, kernel of the sum", fit_seconds, {"kernel_method": "sum"})
    bench.claim("seconds over those of the fit", full.seconds, plain.seconds, at_most=2)
    bench.claim("kernel of the sum: seconds over those of the fit", of_sum.seconds, plain.seconds, at_most=1.5)


CASES = [ranks, scales, lazy, kernels, cost]
