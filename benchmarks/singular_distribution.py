"""Densities near thin sets: `PerturbedLatentDensity` with and without a perturbation, kernel densities and mixtures.

W1 is the exact Wasserstein distance between 600 samples, without noise, and as many new rows of the noiseless curve.
Log-likelihoods are those of new rows of the perturbed curve, for which all densities are fitted: a kernel density with
the bandwidth by cross-validation, and the full Gaussian mixture with the lowest BIC, to perturbed rows. AUC is that of
the negative log density for rows of the curve against rows off it, whose columns are moved by three tenths towards
those of other rows. Unless a case says otherwise, two components, 5 draws per row, learning rate 5e-3, 500 epochs; no
parameter is tuned. Means of seeds. Seconds are those of the processor, of one fit.
"""

import os
import time

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from benchmarks.harness import peak

TITLE = "Densities near thin sets"
MIX = np.random.default_rng(99).normal(size=(6, 10)) / 2
S = 0.2
GRID = (0.0, 0.05, 0.1, 0.2, 0.3)


def curve(n, seed):
    """A closed curve in ten dimensions, without noise."""
    t = np.random.default_rng(seed).uniform(size=n)
    a = 2 * np.pi * t
    return np.c_[np.cos(a), np.sin(a), np.cos(2 * a), np.sin(2 * a), t, t**2] @ MIX


def spiral(n, seed):
    t = np.random.default_rng(seed).uniform(size=n)
    r = 0.2 + 0.8 * t
    return np.c_[r * np.cos(3 * np.pi * t), r * np.sin(3 * np.pi * t)]


def wasserstein(A, B):
    D = cdist(A, B)
    return D[linear_sum_assignment(D)].mean()


def ours(perturbation, seed=0, device=None, **settings):
    from sklowrank.neural import PerturbedLatentDensity

    fixed = {"n_components": 2, "n_importance": 5, "learning_rate": 5e-3, "max_iter": 500}
    device = device or os.environ["SKLOWRANK_BENCH_DEVICE"]
    return PerturbedLatentDensity(perturbation=perturbation, random_state=seed, device=device, **{**fixed, **settings})


def timed(model, X):
    start = time.process_time()
    model.fit(X)
    return time.process_time() - start


class InUnits:
    """A kernel density of standardised rows, by cross-validation, in the units of X."""

    def fit(self, X):
        self.scale = X.std(0)
        search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.05, 1, 12)})
        self.density = search.fit(X / self.scale).best_estimator_
        return self

    def score_samples(self, X):
        return self.density.score_samples(X / self.scale) - np.log(self.scale).sum()


class ByBIC:
    """The Gaussian mixture of the lowest BIC."""

    def fit(self, X):
        found = [GaussianMixture(k, random_state=0, reg_covar=1e-4).fit(X) for k in (1, 2, 5, 10, 20)]
        self.density = min(found, key=lambda model: model.bic(X))
        self.score_samples = self.density.score_samples
        return self


PEERS = {"kernel density": InUnits, "Gaussian mixture": ByBIC}


def judged(model, test, scale, seed=7):
    """Log-likelihood of perturbed rows, and the AUC of rows off the set."""
    g = np.random.default_rng(seed)
    smooth = test + S * scale * g.normal(size=test.shape)
    strange = test + 0.3 * (np.column_stack([g.permutation(c) for c in test.T]) - test)
    off = -model.score_samples(np.r_[test, strange])
    return model.score_samples(smooth).mean(), roc_auc_score(np.repeat([0, 1], len(test)), off)


def on_the_curve(name, seeds=(0, 1)):
    """Figures of a density of 600 rows of the curve."""
    X, T = curve(600, 0), curve(1000, 100)
    scale, rows = X.std(0), []
    for seed in seeds:
        if name in PEERS:
            model = PEERS[name]()
            seconds = timed(model, X + S * scale * np.random.default_rng(7 + seed).normal(size=X.shape))
            rows.append((np.nan, *judged(model, T, scale), np.nan, seconds))
        else:
            model = ours(float(name.partition("= ")[2]), seed)
            seconds = timed(model, X)
            W1 = wasserstein(model.sample(600, random_state=5), T[:600])
            rows.append((W1, *judged(model, T, scale), model.noise_, seconds))
    W1, likely, auc, noise, seconds = np.mean(rows, 0)
    remark = f"W1 {W1:.3f}, noise_ {noise:.3f}, " if np.isfinite(W1) else ""
    remark += f"log-likelihood {likely:.2f}, AUC {auc:.4f}"
    return {"W1": W1, "likely": likely, "auc": auc, "noise": noise, "seconds": seconds, "remark": remark}


def copies():
    """W1 of densities of the rows as they are; the floor is that of two true samples."""
    X, T = curve(600, 0), curve(600, 100)
    kernel = wasserstein(KernelDensity(bandwidth=0.01).fit(X).sample(600, random_state=0), T)
    mixture = wasserstein(GaussianMixture(10, random_state=0, reg_covar=1e-4).fit(X).sample(600)[0], T)
    floor = wasserstein(curve(600, 200), T)
    remark = f"W1 {kernel:.3f} (kernel density, bandwidth 0.01), {mixture:.3f} (mixture of ten), {floor:.3f} (floor)"
    return {"W1": max(kernel, mixture), "remark": remark}


def against_the_prior():
    """Mean difference of `score_samples` from plain Monte Carlo over the latent distribution."""
    X, T = curve(600, 0), curve(1000, 100)
    model = ours(S, 1, n_eval_samples=100).fit(X)
    g = np.random.default_rng(7)
    rows = (T + S * X.std(0) * g.normal(size=T.shape))[:40]
    means, width = model.inverse_transform(g.normal(size=(100_000, 2))), model.noise_ * model.scale_
    slow = np.array([logsumexp(-0.5 * (((x - means) / width) ** 2).sum(1)) - np.log(len(means)) for x in rows])
    gap = slow - np.log(width).sum() - 5 * np.log(2 * np.pi) - model.score_samples(rows)
    return {"gap": abs(gap.mean()), "remark": f"mean {gap.mean():.3f}, largest {np.abs(gap).max():.2f} nats"}


def ten_dimensions(bench):
    """curve: 600 rows in ten dimensions without noise, seeds 0 and 1."""
    without, smooth = (bench.measure(name, on_the_curve, name) for name in ("s = 0", f"s = {S}"))
    peers = [bench.measure(name, on_the_curve, name) for name in PEERS]
    copied = bench.measure("densities of the rows as they are", copies)
    prior = bench.measure("Monte Carlo over the prior", against_the_prior)
    bench.claim("W1, s = 0.2 over s = 0", smooth.W1 / without.W1, at_most=0.8)
    bench.claim("W1, s = 0.2", smooth.W1, at_most=0.44)
    bench.claim(
        "log-likelihood above the better peer, nats", smooth.likely - max(p.likely for p in peers), at_least=0.4
    )
    bench.claim("AUC of rows off the curve", smooth.auc, at_least=0.995)
    bench.claim("learned noise from s", abs(smooth.noise - S), at_most=0.03)
    bench.claim("score_samples from Monte Carlo over the prior, nats", prior.gap, at_most=0.15)
    bench.claim("W1 of densities of the rows as they are, below ours", smooth.W1 - copied.W1, at_least=0.0)


def two_dimensions():
    """W1 on the spiral, and that of a mixture."""
    X, T = spiral(600, 0), spiral(600, 100)
    W1 = wasserstein(ours(0.05, max_iter=300).fit(X).sample(600, random_state=1), T)
    mixture = wasserstein(GaussianMixture(10, random_state=0).fit(X).sample(600)[0], T)
    remark = f"W1 {W1:.3f}, {mixture:.3f} (mixture of ten), {wasserstein(spiral(600, 200), T):.3f} (floor)"
    return {"W1": W1, "mixture": mixture, "remark": remark}


def plane(bench):
    """spiral: 600 rows in the plane, s = 0.05, 300 epochs; the mixture is nearer."""
    found = bench.measure("s = 0.05", two_dimensions)
    bench.claim("W1", found.W1, at_most=0.12)
    bench.claim("W1 of a mixture, below ours", found.W1 - found.mixture, at_least=0.0)


def circle():
    """Distance of samples from the circle, over the perturbation."""
    a = np.random.default_rng(3).uniform(0, 2 * np.pi, 600)
    ring = np.c_[np.cos(a), np.sin(a)]
    model = ours(S, max_iter=200).fit(ring)
    off, on = (
        np.abs(np.linalg.norm(model.sample(1000, random_state=1, noise=noise), axis=1) - 1).mean() / (S * ring.std())
        for noise in (False, True)
    )
    return {"off": off, "on": on, "remark": f"{off:.3f}, with noise {on:.3f}"}


def gaussian():
    """Nats from the density of a normal distribution with the perturbation."""
    g = np.random.default_rng(0)
    C = np.array([[1, 0.6], [0.6, 2.0]])
    X, T = (g.multivariate_normal([0, 1], C, size=2000) for _ in range(2))
    model = ours(S, max_iter=40).fit(X)
    truth = multivariate_normal([0, 1], C + S**2 * np.diag(model.scale_**2)).logpdf(T)
    found = model.score_samples(T)
    mean, rows = abs(found.mean() - truth.mean()), np.abs(found - truth).mean()
    return {"mean": mean, "rows": rows, "remark": f"mean {mean:.3f}, rows {rows:.3f} nats"}


def closed_forms(bench):
    """closed forms: a circle, 200 epochs, and a normal distribution in the plane, 2,000 rows, 40 epochs; s = 0.2."""
    ring, normal = bench.measure("circle", circle), bench.measure("normal distribution", gaussian)
    bench.claim("circle: distance of samples over s", ring.off, at_most=0.5)
    bench.claim("circle: distance of samples with noise over s", ring.on, at_least=0.75)
    bench.claim("normal: mean score from the truth, nats", normal.mean, at_most=0.1)
    bench.claim("normal: rows from the truth, mean nats", normal.rows, at_most=0.2)


def chosen():
    """W1 of the automatic perturbation over that of the best of the grid."""
    X, T = curve(600, 0), curve(600, 100)
    model = ours("auto", max_iter=120)
    seconds = timed(model, X)
    grid = {s: wasserstein(ours(s, max_iter=120).fit(X).sample(600, random_state=5), T) for s in GRID}
    ratio = grid[model.perturbation_] / min(grid.values())
    remark = f"chosen {model.perturbation_}; W1 " + ", ".join(f"{w:.3f} (s = {s})" for s, w in grid.items())
    return {"ratio": ratio, "seconds": seconds, "remark": remark}


def automatic(bench):
    """auto: the choice of the perturbation on the curve, 120 epochs."""
    bench.claim("W1 over the best of the grid", bench.measure("auto", chosen).ratio, at_most=1.25)


def on_cells(name):
    """Breast cancer, 30 columns of which many nearly determine others: halves, means of two splits; defaults."""
    rows, X = [], load_breast_cancer().data
    for seed in (0, 1):
        order = np.random.default_rng(seed).permutation(len(X))
        A, B = X[order[::2]], X[order[1::2]]
        scale = A.std(0)
        model = PEERS[name]() if name in PEERS else ours(S, seed, n_components=None, n_importance=10, max_iter=300)
        noise = S * scale * np.random.default_rng(7 + seed).normal(size=A.shape) if name in PEERS else 0.0
        rows.append((timed(model, A + noise), *judged(model, B, scale)))
    seconds, likely, auc = np.mean(rows, 0)
    return {"likely": likely, "auc": auc, "seconds": seconds, "remark": f"log-likelihood {likely:.2f}, AUC {auc:.4f}"}


def cells(bench):
    """breast cancer: half of the rows to fit, s = 0.2, default parameters; a mixture finds mixed rows better."""
    found = {name: bench.measure(name, on_cells, name) for name in ("ours", *PEERS)}
    better = max(found[name].likely for name in PEERS)
    bench.claim("log-likelihood above the better peer, nats", found["ours"].likely - better, at_least=0.4)
    bench.claim("AUC of the mixture above ours", found["Gaussian mixture"].auc - found["ours"].auc, at_least=0.0)


def many_rows(n):
    """Seconds and memory of 3 epochs, and of scores, on n rows."""
    model = ours(S, max_iter=3)
    model.fit(curve(1000, 1))  # the first step of a process is slow
    X = curve(n, 0).astype(np.float32)
    seconds = timed(model, X)
    start = time.process_time()
    model.score_samples(X[: n // 10])
    scores = time.process_time() - start
    return {"seconds": seconds, "scores": scores, "peak": peak(), "remark": f"{scores:.1f} s for a tenth's scores"}


def scale(bench):
    """scale: 3 epochs on rows of the curve, and the scores of a tenth of them."""
    small, large = (bench.measure(f"{n} rows", many_rows, n) for n in (10_000, 100_000))
    bench.claim("seconds of ten times the rows, over ten", large.seconds / 10 / small.seconds, at_most=1.5)
    bench.claim("seconds of ten times the scores, over ten", large.scores / 10 / small.scores, at_most=1.5)
    bench.claim("memory for 90,000 rows more, MB", large.peak - small.peak, at_most=200)


def on_a_gpu():
    """The same fit on both devices: seconds, and how far samples and scores are apart."""
    X, found, seconds = curve(2000, 0), {}, {}
    for device in ("cpu", "cuda"):
        model = ours(S, device=device, max_iter=20, batch_size=1000)
        model.fit(X)  # the first step of a process is slow
        start = time.perf_counter()
        model.fit(X)
        seconds[device] = time.perf_counter() - start
        found[device] = model.score_samples(X[:200])
    gap = np.abs(found["cpu"] - found["cuda"]).max()
    return {"gap": gap, "seconds": seconds["cuda"], "remark": f"CPU {seconds['cpu']:.1f} s; {gap:.1e} nats apart"}


def gpu(bench):
    """GPU: 20 epochs of two batches on both devices."""
    if os.environ["SKLOWRANK_BENCH_DEVICE"] != "cuda":
        bench.skip("it compares with a GPU: python -m benchmarks singular_distribution --device cuda")
        return
    found = bench.measure("CUDA", on_a_gpu)
    bench.claim("scores on the GPU from those on the CPU, nats", found.gap, at_most=0.05)


CASES = [ten_dimensions, plane, closed_forms, automatic, cells, scale, gpu]
