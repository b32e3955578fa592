"""Networks, the rules that train them, an optimizer, and what looks into networks."""

import numpy as np
import scipy.linalg
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.data import bundled
from benchmarks.grassmann_class_representation import Clafic
from benchmarks.networks import estimators, ordered_rank, rules, sharpness_aware
from benchmarks.scoreboard.entries import Clock, Contender, Entry

RANKS = (4, 6, 8, 12)
TASK = "digits, hidden layers of 128 and 128 units, 60 epochs"
WRONG = "1 - accuracy"


def digits(dtype=np.float32, **how):
    X, y = bundled("digits")
    options = {"test_size": 0.3, "stratify": y, "random_state": 0, **how}
    return train_test_split((X / 16 - 0.3).astype(dtype), y, **options)


# Protocols


def fitted(**how):
    """A protocol: one network or another on digits from -0.3 to 0.7."""

    def protocol(make, seed):
        X, X_new, y, y_new = digits(**how)
        model = make(seed)
        with Clock() as clock:
            labels = model.fit(X, y).predict(X_new)
        return 1 - accuracy_score(y_new, labels), clock.seconds

    return protocol


def raw_digits(make, seed):
    X, y = bundled("digits")
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    model = make(seed)
    with Clock() as clock:
        labels = model.fit(X, y).predict(X_new)
    return 1 - np.mean(labels == y_new), clock.seconds


def all_sizes(make, seed):
    """The mean error of networks of four sizes, of ranks 4, 6, 8 and 12."""
    X, X_new, y, y_new = digits()
    with Clock() as clock:
        errors = make(seed)(X, y, X_new, y_new)
    return np.mean(errors), clock.seconds


def under_noise(make, seed):
    X, y, _, noisy, truth = sharpness_aware.digits()
    model = make(seed)
    with Clock() as clock:
        right = model.fit(X, y).score(noisy, truth)
    return 1 - right, clock.seconds


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


def with_rule(name, **settings):
    """A network that is trained by a rule, at the step size of its page."""

    def make(seed):
        from sklowrank import neural

        rate = {"OrderedRank": 3e-3, "RandomSubspace": 1e-2}.get(name, 1e-3)
        return neural.NetworkClassifier(
            rules.SIZES,
            training=getattr(neural, name)(**settings),
            learning_rate=rate,
            max_iter=rules.EPOCHS,
            tol=0,
            standardize=False,
            random_state=seed,
        )

    return make


def of_all_ranks(rule):
    """One fit, cut to each rank: by its order, or by singular values where there is no rule."""

    def make(seed):
        def errors(X, y, X_new, y_new):
            rate = {} if rule is not None else {"rate": 1e-3}
            model = ordered_rank.network(rule, seed, **rate).fit(X, y)
            return [1 - ordered_rank.at_rank(model, (rank, rank)) for rank in RANKS]

        return errors

    return make


def flat(seed):
    return sharpness_aware.network({}, seed)


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


def mlp(sizes=rules.SIZES, epochs=rules.EPOCHS, rate=1e-3, **settings):
    options = {"batch_size": 64, "tol": 0, "n_iter_no_change": 999, "alpha": 0, **settings}

    def make(seed):
        return MLPClassifier(sizes, learning_rate_init=rate, max_iter=epochs, random_state=seed, **options)

    return make


def narrow_networks(seed):
    """A network of two hidden layers of one width for each size, with as many parameters; one fit each."""

    def errors(X, y, X_new, y_new):
        found = []
        for rank in RANKS:
            numbers = rank * (64 + 3 * 128) + 2 * 128 + 1290
            width = int(-38 + np.sqrt(38**2 + numbers - 10))
            found.append(1 - mlp((width, width))(seed).fit(X, y).score(X_new, y_new))
        return found

    return errors


class Adapted:
    """The network with frozen weights and trained changes of rank 8, the last layer trained."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        import torch
        from skorch import NeuralNetClassifier

        from benchmarks.networks.sparse_spectral_training import network

        module, _ = network("adapter", (64, 128, 128, 10), self.seed, 8)
        options = {"max_epochs": rules.EPOCHS, "batch_size": 64, "iterator_train__shuffle": True}
        self.net = NeuralNetClassifier(
            module,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            train_split=None,
            verbose=0,
            **options,
        )
        self.net.fit(X, y)
        return self

    def predict(self, X):
        return self.net.predict(X)


class RandomFeatures:
    """A fixed random hidden layer of 39 units, and a logistic regression: 400 numbers."""

    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)

    def read(self, X):
        return np.maximum(X @ self.W + self.b, 0)

    def fit(self, X, y):
        self.W, self.b = self.rng.randn(X.shape[1], 39) / 8, self.rng.randn(39) / 8
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(self.read(X), y)
        return self

    def predict(self, X):
        return self.model.predict(self.read(X))


class Truncated:
    """Plain training, the weights of the hidden layers cut to rank 8, and ten epochs more."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        from benchmarks.networks.trained_rank_pruning import network, thin

        module = thin(network(None, self.seed).fit(X, y).network(), (8, 8))
        self.net = network(None, self.seed, module=module, max_iter=10).fit(X, y)
        return self

    def predict(self, X):
        return self.net.predict(X)


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


class Standardised:
    """The net of skorch behind a scaler, in float32."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        self.scaler = StandardScaler().fit(X)
        self.net = estimators.skorch_net((128, 128), X.shape[1], 10, 40, self.seed)
        self.net.fit(self.scaler.transform(X).astype(np.float32), y)
        return self

    def predict(self, X):
        return self.net.predict(self.scaler.transform(X).astype(np.float32))


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


def of_rule(name, ours, plain, peer, **settings):
    return Entry(name, TASK, WRONG, fitted(), Contender(ours, with_rule(name, **settings)), plain, peer)


FULL = Contender("MLPClassifier, all weights", mlp())

ENTRIES = [
    Entry(
        "NetworkClassifier, NetworkRegressor",
        "digits, standardised, hidden layers of 128 and 128 units, 40 epochs",
        WRONG,
        raw_digits,
        Contender("batches of 64", lambda seed: estimators.ours("digits", seed)),
        Contender("MLPClassifier", lambda seed: estimators.theirs("digits", seed)),
        Contender("skorch net by hand", Standardised, "skorch"),
        3,
    ),
    Entry(
        "OrderedRank",
        "digits, hidden layers of 128 and 128 units, networks of ranks 4, 6, 8 and 12",
        "1 - accuracy, mean of the four",
        all_sizes,
        Contender("one fit", of_all_ranks({})),
        Contender("MLPClassifier of as many parameters, four fits", narrow_networks),
        Contender("one plain fit in torch, cut by singular values", of_all_ranks(None)),
    ),
    of_rule(
        "TrainedRankPruning",
        "period=5, nuclear_weight=1e-2",
        Contender("MLPClassifier, 42 and 42 units, as many parameters", mlp((42, 42))),
        Contender("plain training in torch, cut to rank 8, 10 epochs more", Truncated),
        energy=0.98,
        period=5,
        nuclear_weight=1e-2,
    ),
    of_rule("SparseSpectralTraining", "default", FULL, Contender("adapters of rank 8 in torch", Adapted)),
    of_rule(
        "RandomSubspace",
        "400 numbers",
        Contender("LogisticRegression, 650 numbers", lambda seed: LogisticRegression(max_iter=2000)),
        Contender("random features, 400 numbers", RandomFeatures),
        subspace_dim=400,
    ),
    Entry(
        "SharpnessAware",
        "half of the digits to fit, the others with noise of 0.25, SGD",
        WRONG,
        under_noise,
        Contender("default", flat),
        Contender("MLPClassifier, SGD", sharpness_aware.sklearn_network),
        Contender("SAM in torch by hand", sharpness_aware.ByHand),
        3,
    ),
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
