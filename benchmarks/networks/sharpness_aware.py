"""Sharpness-aware steps: accuracy under noise, forgetting in a warm start, agreement with SAM, cost of a step."""

import os
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import clock
from benchmarks.networks.steps import step

SGD = {"learning_rate": 0.05, "batch_size": 32}
SIZES, EPOCHS, SEEDS = (64, 64), 40, 3
SEEDS_OF_WARM_STARTS = [f"seed {seed}" for seed in range(5)]


def digits():
    """Half of the digits to train on, the other half clean and with noise of standard deviation 0.25."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16 - 0.3).astype(np.float32)
    X, clean, y, truth = train_test_split(X, y, train_size=0.5, stratify=y, random_state=0)
    noisy = clean + np.random.default_rng(0).normal(scale=0.25, size=clean.shape).astype(np.float32)
    return X, y, clean, noisy, truth


def network(rule, seed, epochs=EPOCHS, sgd=True, **params):
    import torch

    from sklowrank.neural import NetworkClassifier, SharpnessAware

    if sgd:
        params |= {"net_params": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}, **SGD}
    return NetworkClassifier(
        SIZES,
        training=None if rule is None else SharpnessAware(**rule),
        max_iter=epochs,
        tol=0,
        standardize=False,
        device=os.environ["SKLOWRANK_BENCH_DEVICE"],
        random_state=seed,
        **params,
    )


class ByHand:
    """SAM in ten lines of torch, on the same network."""

    def __init__(self, seed, rho=0.05):
        self.seed, self.rho = seed, rho

    def fit(self, X, y):
        import torch
        from torch.nn.functional import cross_entropy

        self.net = network(None, self.seed, 1).set_params(learning_rate=1e-12).fit(X, y).network()
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        rows, parameters = torch.Generator().manual_seed(self.seed), list(self.net.parameters())
        base = torch.optim.SGD(parameters, lr=SGD["learning_rate"], momentum=0.9)
        for _ in range(EPOCHS):
            for at in torch.randperm(len(X), generator=rows).split(SGD["batch_size"]):
                base.zero_grad()
                cross_entropy(self.net(X[at]), y[at]).backward()
                before = [p.detach().clone() for p in parameters]
                norm = sum(p.grad.square().sum() for p in parameters).sqrt()
                with torch.no_grad():
                    for p in parameters:
                        p += self.rho * p.grad / norm
                base.zero_grad()
                cross_entropy(self.net(X[at]), y[at]).backward()
                with torch.no_grad():
                    for p, value in zip(parameters, before):
                        p.copy_(value)
                base.step()
        return self

    def score(self, X, y):
        import torch

        with torch.inference_mode():
            return float((self.net(torch.from_numpy(X)).argmax(1).numpy() == y).mean())


class ByPackage(ByHand):
    """SAM of pytorch_optimizer."""

    def fit(self, X, y):
        import torch
        from pytorch_optimizer import SAM
        from torch.nn.functional import cross_entropy

        self.net = network(None, self.seed, 1).set_params(learning_rate=1e-12).fit(X, y).network()
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        rows = torch.Generator().manual_seed(self.seed)
        lr = SGD["learning_rate"]
        both = SAM(self.net.parameters(), torch.optim.SGD, rho=self.rho, lr=lr, momentum=0.9)
        for _ in range(EPOCHS):
            for at in torch.randperm(len(X), generator=rows).split(SGD["batch_size"]):
                cross_entropy(self.net(X[at]), y[at]).backward()
                both.first_step(zero_grad=True)
                cross_entropy(self.net(X[at]), y[at]).backward()
                both.second_step(zero_grad=True)
        return self


def sklearn_network(seed):
    warnings.simplefilter("ignore")  # a set number of epochs
    options = {"learning_rate_init": 0.05, "momentum": 0.9, "nesterovs_momentum": False, "alpha": 0, "tol": 0}
    return MLPClassifier(SIZES, solver="sgd", batch_size=32, max_iter=EPOCHS, random_state=seed, **options)


def under_noise(make, *args):
    """Mean accuracies of three seeds."""
    X, y, clean, noisy, truth = digits()
    found, times, radii = [], [], []
    for seed in range(SEEDS):
        model, seconds = clock(lambda seed=seed: make(*args[:1], seed, *args[1:]).fit(X, y), budget=0)
        found.append((model.score(clean, truth), model.score(noisy, truth)))
        times.append(seconds)
        radii.append(np.mean(getattr(model, "training_", {}).get("radius_curve", np.nan)))
    accuracy, under = np.mean(found, axis=0)
    remark = f"accuracy {accuracy:.3f} clean, {under:.3f} under noise"
    if np.isfinite(radii).all():
        remark += f", mean radius {np.mean(radii):.2g}"
    return {"clean": accuracy, "noisy": under, "seconds": min(times), "remark": remark}


def peer(name, seed):
    return {"hand": ByHand, "package": ByPackage, "sklearn": sklearn_network}[name](seed)


def warm_start(rule, sgd):
    """Accuracies on clean digits after 5 more epochs on 200 rows with noise, of five seeds."""
    X, y, clean, _, truth = digits()
    first, after = [], []
    for seed in range(len(SEEDS_OF_WARM_STARTS)):
        model = network(None, seed, sgd=sgd, warm_start=True).fit(X, y)
        first.append(model.score(clean, truth))
        rng = np.random.default_rng(seed)
        rows = rng.choice(len(X), 200, replace=False)
        noisy_rows = (X[rows] + rng.normal(scale=0.5, size=(200, X.shape[1]))).astype(np.float32)
        training = network(rule, seed).training
        model.set_params(training=training, max_iter=5).fit(noisy_rows, y[rows])
        after.append(model.score(clean, truth))
    remark = f"accuracy {np.mean(first):.3f} before, {np.mean(after):.4f} after"
    return {"after": np.mean(after), "remark": remark, **dict(zip(SEEDS_OF_WARM_STARTS, after))}


def agreement():
    """Largest difference of weights: None and the optimizer alone, a number and SAM by hand, after 20 steps."""
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn
    from torch.nn.functional import cross_entropy

    from sklowrank.neural import SharpnessAware

    X, y = digits()[:2]
    X, y = X[:640], y[:640]

    def built():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def trained(*rules):
        callbacks = [("rule", SharpnessAware(*rules))] if rules else []
        options = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.05, "batch_size": 32}
        net = NeuralNetClassifier(
            built(), criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0, callbacks=callbacks,
            **options,
        )  # fmt: skip
        return list(net.fit(X, y).module_.parameters())

    reference = built()
    parameters = list(reference.parameters())
    base = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for rows, labels in zip(torch.from_numpy(X).split(32), torch.from_numpy(y).split(32)):
        gradient = torch.autograd.grad(cross_entropy(reference(rows), labels), parameters)
        norm = sum(g.square().sum() for g in gradient).sqrt()
        perturbed = {
            name: p + 0.05 * g / norm for (name, p), g in zip(reference.named_parameters(), gradient, strict=True)
        }
        outputs = torch.func.functional_call(reference, perturbed, rows)
        base.zero_grad()
        for p, g in zip(parameters, torch.autograd.grad(cross_entropy(outputs, labels), parameters)):
            p.grad = g
        base.step()

    def gap(a, b):
        return max(float((x - z).detach().abs().max()) for x, z in zip(a, b, strict=True))

    plain = trained()
    found = {"none": gap(plain, trained(None)), "sam": gap(parameters, trained(0.05)), "apart": gap(plain, parameters)}
    return {
        **found,
        "remark": f"None {found['none']:.1g}, 0.05 {found['sam']:.1g}; SAM and SGD {found['apart']:.1g} apart",
    }


# Cases


def noise(bench):
    """sharpness-aware, digits: half of the digits, two hidden layers of 64, SGD 0.05 with momentum 0.9, batches of 32.

    40 epochs, three seeds; noise of standard deviation 0.25 in the pixels of the other half, in units of their range.
    """
    plain = bench.measure("plain SGD", under_noise, network, None)
    bench.measure("plain SGD, 100 epochs", under_noise, network, None, 100)
    ours = bench.measure("SharpnessAware", under_noise, network, {})
    for name, rule in {
        "theta_prev, scale 1": {"radius": "theta_prev", "radius_scale": 1.0},
        "theta_prev, scale 10": {"radius": "theta_prev", "radius_scale": 10.0},
        "theta_init": {"radius": "theta_init"},
        "fisher": {"radius": "fisher"},
        "0.05 (SAM)": {"radius": 0.05},
        "0.2 (SAM)": {"radius": 0.2},
        "1.0, adaptive (ASAM)": {"radius": 1.0, "adaptive": True},
    }.items():
        bench.measure(f"SharpnessAware, {name}", under_noise, network, rule)
    sam = bench.measure("SAM 0.05 by hand", under_noise, peer, "hand")
    bench.measure("SAM 0.05 of pytorch_optimizer", under_noise, peer, "package", package="pytorch_optimizer")
    bench.measure("MLPClassifier", under_noise, peer, "sklearn", package="scikit-learn")
    bench.claim("clean accuracy above plain SGD", ours.clean - plain.clean, at_least=0.003)
    bench.claim("accuracy under noise above plain SGD", ours.noisy - plain.noisy, at_least=0.012)
    bench.claim("accuracy under noise above SAM 0.05", ours.noisy - sam.noisy, at_least=0.0)


def forgetting(bench):
    """sharpness-aware, warm start: accuracy on clean digits of a fit to clean ones, after 5 more epochs on 200 rows.

    These rows have noise of standard deviation 0.5; five seeds, defaults of the pair (Adam at 0.001), and SGD as above.
    """
    plain = bench.measure("plain training", warm_start, None, False)
    ours = bench.measure("SharpnessAware('theta_init')", warm_start, {"radius": "theta_init"}, False)
    bench.measure("SharpnessAware()", warm_start, {}, False)
    bench.measure("plain training, SGD", warm_start, None, True)
    bench.measure("SharpnessAware('theta_init'), SGD", warm_start, {"radius": "theta_init"}, True)
    bench.measure("SharpnessAware(), SGD", warm_start, {}, True)
    worst = min(ours[seed] - plain[seed] for seed in SEEDS_OF_WARM_STARTS) if ours and plain else np.nan
    bench.claim("theta_init above plain training, mean", ours.after - plain.after, at_least=0.0)
    bench.claim("theta_init above plain training, worst seed", worst, at_least=-0.005)


def definition(bench):
    """sharpness-aware, definition: weights after 20 steps of the rule, of the optimizer alone and of SAM by hand."""
    found = bench.measure("SharpnessAware(None), SharpnessAware(0.05)", agreement)
    bench.claim("radius=None, difference from the optimizer alone", found.none, at_most=0.0)
    bench.claim("radius=0.05, difference from SAM by hand", found.sam, at_most=1e-6)
    bench.claim("SAM and the optimizer alone differ", found.apart, at_least=1e-3)


def cost(bench):
    """sharpness-aware, a step: two hidden layers of 1,024, batches of 64 rows."""
    plain = bench.measure("plain training", step, None, {})
    ours = bench.measure("SharpnessAware", step, "SharpnessAware", {})
    sam = bench.measure("SharpnessAware(0.05)", step, "SharpnessAware", {"radius": 0.05})
    bench.claim("time of a step, of plain training", ours.seconds, plain.seconds, at_most=2.6)
    bench.claim("time of a step of SAM, of plain training", sam.seconds, plain.seconds, at_most=2.3)
    bench.claim("memory added, of plain training", ours.added, plain.added, at_most=1.5)


CASES = [noise, forgetting, definition, cost]
