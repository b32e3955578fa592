"""Networks, and the rules that train them."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import bundled
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


def of_rule(name, ours, plain, peer, **settings):
    seeds = 2 if name == "RandomSubspace" else 3
    return Entry(name, TASK, WRONG, fitted(), Contender(ours, with_rule(name, **settings)), plain, peer, seeds)


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
        5,
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
]
