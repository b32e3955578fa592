"""Classes as subspaces, an optimizer, and what looks into networks."""

import numpy as np
import scipy.linalg
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from benchmarks.data import bundled
from benchmarks.grassmann_class_representation import Clafic
from benchmarks.networks import estimators
from benchmarks.scoreboard.entries import Clock, Contender, Entry
from benchmarks.scoreboard.networks import WRONG, fitted, mlp

# Protocols


def images(make, seed):
    X, y = bundled("digits")
    X, X_new, y, y_new = train_test_split(X / 16, y, train_size=0.5, stratify=y, random_state=seed)
    model = make(seed)
    with Clock() as clock:
        right = model.fit(X, y).score(X_new, y_new)
    return 1 - right, clock.seconds


def fewest_numbers(make, seed):
    X, y = bundled("digits")
    with Clock() as clock:
        numbers = make(seed)(X / 16 - 0.3, y)
    return numbers, clock.seconds


# Ours


def grassmann(seed):
    from sklowrank.neural import GrassmannClassifier

    return GrassmannClassifier(8, random_state=seed)


def skorch_of(name, lr):
    """A skorch net with some optimizer, 64 hidden units, 20 epochs."""

    def make(seed):
        import torch
        from skorch import NeuralNetClassifier
        from torch import nn

        from sklowrank.optim import MFAC

        torch.manual_seed(seed)
        return NeuralNetClassifier(
            nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
            criterion=nn.CrossEntropyLoss,
            optimizer=MFAC if name == "MFAC" else getattr(torch.optim, name),
            lr=lr,
            max_epochs=20,
            batch_size=64,
            train_split=None,
            verbose=0,
        )

    return make


def regime(seed):
    from sklowrank.inspection import LearningRegime
    from sklowrank.neural import NetworkClassifier

    net = NetworkClassifier((128,), max_iter=40, tol=0, standardize=False, random_state=seed)
    return LearningRegime(net, probe_size=100, random_state=seed)


def dimension(seed):
    """The smallest random subspace in which a network has nine tenths of the accuracy that it has with all weights."""
    from sklowrank.inspection import IntrinsicDimension
    from sklowrank.neural import NetworkClassifier

    def numbers(X, y):
        options = {"learning_rate": 1e-2, "max_iter": 30, "tol": 0, "standardize": False}
        cv = StratifiedShuffleSplit(1, test_size=0.3, random_state=0)
        net = NetworkClassifier((32,), **options)
        return IntrinsicDimension(net, d_min=32, cv=cv, n_seeds=2, random_state=seed).fit(X, y).intrinsic_dim_

    return numbers


# Plain baselines and peers


class Watched:
    """A skorch net, and its tangent kernels of 100 rows before and after, by Jacobians of torch.func."""

    def __init__(self, seed):
        self.net = estimators.skorch_net((128,), 64, 10, 40, seed)

    def kernel(self, X):
        import torch
        from torch.func import functional_call, jacrev, vmap

        module = self.net.module_
        weights = {name: value.detach() for name, value in module.named_parameters()}

        def outputs(weights, x):
            return functional_call(module, weights, (x[None],))[0]

        J = vmap(jacrev(outputs), (None, 0))(weights, torch.from_numpy(X[:100]))
        J = torch.cat([part.flatten(2) for part in J.values()], 2).flatten(0, 1)
        return (J @ J.T).numpy()

    def fit(self, X, y):
        before = self.kernel(X) if self.net.initialize() else None
        self.net.fit(X, y)
        after = self.kernel(X)
        self.alignment = (before * after).sum() / scipy.linalg.norm(before) / scipy.linalg.norm(after)
        return self

    def predict(self, X):
        return self.net.predict(X)


def until_nine_tenths(candidates):
    """The numbers of the first of some models with nine tenths of the accuracy of a network, with the same rows."""

    def make(seed):
        def numbers(X, y):
            train, test = next(StratifiedShuffleSplit(1, test_size=0.3, random_state=0).split(X, y))
            whole = mlp((32,), 30, 1e-2)(seed).fit(X[train], y[train]).score(X[test], y[test])
            for size, model in candidates(seed):
                if model.fit(X[train], y[train]).score(X[test], y[test]) >= 0.9 * whole:
                    return size
            return np.nan

        return numbers

    return make


def lines_on_components(seed):
    for k in range(1, 65):
        yield 10 * (k + 1), make_pipeline(PCA(k, random_state=0), LogisticRegression(max_iter=2000))


def small_networks(seed):
    for k in range(1, 33):
        yield 64 * k + k + 10 * k + 10, mlp((k,), 60, 1e-2)(seed)


ENTRIES = [
    Entry(
        "GrassmannClassifier",
        "digits, half of them to fit",
        WRONG,
        images,
        Contender("8 dimensions", grassmann),
        Contender("SVC", lambda seed: SVC()),
        Contender("CLAFIC in numpy, 8 dimensions", lambda seed: Clafic(8)),
        3,
    ),
    Entry(
        "MFAC",
        "digits, 64 hidden units, 20 epochs, step sizes chosen from three for each",
        WRONG,
        fitted(),
        Contender("lr=1e-2", skorch_of("MFAC", 1e-2)),
        Contender("MLPClassifier, Adam at 3e-3", mlp((64,), 20, 3e-3)),
        Contender("AdamW of torch at 3e-3", skorch_of("AdamW", 3e-3)),
        3,
    ),
    Entry(
        "LearningRegime",
        "digits, 128 hidden units, 40 epochs; ours and the peer compare tangent kernels beside it",
        WRONG,
        fitted(),
        Contender("default", regime),
        Contender("MLPClassifier, no kernels", mlp((128,), 40)),
        Contender("skorch net, kernels by torch.func", Watched),
    ),
    Entry(
        "IntrinsicDimension",
        "digits; nine tenths of the accuracy of a network of 32 hidden units",
        "fewest numbers that are trained",
        fewest_numbers,
        Contender("30 epochs", dimension),
        Contender("LogisticRegression on principal components", until_nine_tenths(lines_on_components)),
        Contender("networks of 1, 2, 3, ... hidden units", until_nine_tenths(small_networks)),
        1,
    ),
]
