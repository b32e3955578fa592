"""Features for a purpose: of a class, of a random object, of a fitted predictor; metrics and encoders."""

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor, NeighborhoodComponentsAnalysis
from sklearn.preprocessing import StandardScaler

from benchmarks import dynamic_subspace_learners as dynamic
from benchmarks import relative_representation as relative
from benchmarks.data import ink, logarithms, split
from benchmarks.frechet_sdr import reduction
from benchmarks.peers import Reduced
from benchmarks.scoreboard.entries import Clock, Contender, Entry

# Protocols


def four_components(make, seed):
    X, y, _, X_new, y_new, _ = split("digits", seed)
    model = make(seed)
    with Clock() as clock:
        labels = model.fit(X, y).predict(X_new)
    return 1 - np.mean(labels == y_new), clock.seconds


def half_digits(make, seed):
    """How the ink of a digit spreads, by the mean of 15 neighbours in three features of its left half."""
    X, S = ink()
    T = logarithms(S)
    fit, new = train_test_split(np.arange(len(X)), test_size=0.4, random_state=seed)
    scaler = StandardScaler().fit(X[fit])
    X, X_new = scaler.transform(X[fit]), scaler.transform(X[new])
    with Clock() as clock:
        features = make(seed)(X, S[fit])
        Z, Z_new = features(X), features(X_new)
    guess = KNeighborsRegressor(15).fit(Z, T[fit]).predict(Z_new)
    return np.linalg.norm(guess - T[new], axis=1).mean(), clock.seconds


def prefixes(make, seed):
    """A fitted network on rows that are rebuilt from 4 and from 8 of 64 numbers, by one fit."""
    from benchmarks.compression.low_rank import digits, mlp
    from benchmarks.compression.projection import classifier

    X, X_new, y, y_new = digits(seed)
    net = classifier(lambda: mlp(64, 128, 128, 10), X, y, seed, optimizer__weight_decay=0.01)
    with Clock() as clock:
        components, mean = make(seed)(X, net)
    wrong = []
    for width in (4, 8):
        Q = np.linalg.qr(components[:width].T)[0]
        rows = ((X_new - mean) @ Q @ Q.T + mean).astype(np.float32)
        wrong.append(np.mean(net.predict(rows) != y_new))
    return np.mean(wrong), clock.seconds


def nearest_of_class(make, seed):
    A, B, a, b = dynamic.digits(seed)
    model = make(seed)
    with Clock() as clock:
        Z = model.fit(A, a).transform(B)
    return 1 - dynamic.judged(Z, b)[1], clock.seconds


def moved_encoder(task):
    """A protocol: a classifier for the rows of one encoder, on those of another; 100 anchors are known to both."""

    def protocol(make, seed):
        (A, _), (C, D), a, b = relative.encoded(task)
        at = np.random.RandomState(seed).permutation(len(A))[:100]
        with Clock() as clock:
            labels = make(seed)(A, a, C, D, at)
        return 1 - np.mean(labels == b), clock.seconds

    return protocol


# Contenders


def dictionary(seed):
    from sklowrank.decomposition import SupervisedDictionaryLearning

    return SupervisedDictionaryLearning(4, random_state=seed)


def reduced(first):
    return lambda seed: Reduced(first(seed) if callable(first) else first, 4, LogisticRegression(max_iter=5000))


class ReducedRankLogistic:
    """Logistic regression whose matrix of weights is a product of width four, by L-BFGS of torch."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        import torch

        torch.manual_seed(self.seed)
        self.net = torch.nn.Sequential(torch.nn.Linear(X.shape[1], 4), torch.nn.Linear(4, len(np.unique(y)))).double()
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        best = torch.optim.LBFGS(self.net.parameters(), max_iter=500, line_search_fn="strong_wolfe")

        def closure():
            best.zero_grad()
            penalty = 0.5 / len(X) * sum(p.square().sum() for p in self.net.parameters() if p.ndim == 2)
            loss = torch.nn.functional.cross_entropy(self.net(X), y) + penalty
            loss.backward()
            return loss

        best.step(closure)
        return self

    def predict(self, X):
        import torch

        with torch.inference_mode():
            return self.net(torch.from_numpy(X)).argmax(1).numpy()


def features(name):
    """A reduction to three features of responses that are matrices."""

    def make(seed):
        if name == "PCA":
            return lambda X, S: PCA(3).fit(X).transform
        return lambda X, S: reduction(name, {}, X, S, 3, "spd_log", seed)

    return make


def matryoshka(seed):
    from sklearn.frozen import FrozenEstimator

    from sklowrank.decomposition import MatryoshkaProjection

    def directions(X, net):
        model = MatryoshkaProjection(8, estimator=FrozenEstimator(net), rank_schedule=[4, 8], random_state=seed)
        model.fit(X)
        return model.components_, model.mean_

    return directions


def by_latent_structure(seed):
    from benchmarks.compression.projection import directions

    def of_outputs(X, net):
        return directions("PLSRegression", seed, net, X, net.predict(X))

    return of_outputs


def active_subspace(seed):
    """Leading eigenvectors of the mean outer product of the gradients of the outputs, in torch."""

    def directions(X, net):
        import torch

        rows = torch.from_numpy(X).requires_grad_()
        out, total = net.module_.eval()(rows), 0.0
        out = out - out.mean(1, keepdim=True)
        for k in range(out.shape[1]):
            gradient = torch.autograd.grad(out[:, k].sum(), rows, retain_graph=True)[0].double().numpy()
            total = total + gradient.T @ gradient
        return np.linalg.eigh(total)[1][:, ::-1].T, X.mean(0)

    return directions


def dynamic_learner(seed):
    return dynamic.learner(seed)


def by_anchors(A, a, C, D, at):
    from sklowrank.metric_learning import RelativeRepresentation

    here, there = (RelativeRepresentation(anchors=at).fit(rows) for rows in (A, C))
    return relative.head().fit(here.transform(A), a).predict(there.transform(D))


def by_stitching(A, a, C, D, at):
    from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier

    model = StitchedClassifier(relative.head(), representation=RelativeRepresentation(anchors=at)).fit(A, a)
    return model.adapt(C[at]).predict(D)


def by_procrustes(A, a, C, D, at):
    """The orthogonal map between anchors; the narrower rows get columns of zeros."""
    width = max(A.shape[1], C.shape[1])
    A, C, D = (np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (A, C, D))
    here, there = A[at].mean(0), C[at].mean(0)
    turn, total = orthogonal_procrustes(C[at] - there, A[at] - here)
    moved = (D - there) @ turn * total / np.square(C[at] - there).sum() + here
    return relative.head().fit(A, a).predict(moved)


def by_regression(A, a, C, D, at):
    """A linear map of the anchors, by ridge regression."""
    return relative.head().fit(A, a).predict(Ridge(0.1).fit(C[at], A[at]).predict(D))


def always(rule):
    return lambda seed: rule


DIGITS = "digits, four components"
INK = "left halves of digits, three features; the spread of the ink is a 2 x 2 matrix"
SPREAD = "distance of matrices predicted by 15 neighbours"
PLS = Contender("PLSRegression", features("PLSRegression"))
NET = Contender("distance-covariance network in torch", features("distance-covariance network"))

ENTRIES = [
    Entry(
        "SupervisedDictionaryLearning, SupervisedDictionaryRegressor",
        DIGITS,
        "1 - accuracy",
        four_components,
        Contender("default", dictionary),
        Contender("LinearDiscriminantAnalysis, LogisticRegression", reduced("LDA")),
        Contender("logistic regression of rank 4 in torch", ReducedRankLogistic),
        3,
    ),
    Entry(
        "MatryoshkaProjection",
        "a network 64-128-128-10 on digits; rows as 4 and as 8 numbers",
        "1 - accuracy of the network, mean of both",
        prefixes,
        Contender("two widths", matryoshka),
        Contender("PLSRegression", by_latent_structure),
        Contender("active subspace in torch", active_subspace),
        2,
    ),
    *(
        Entry(name, INK, SPREAD, half_digits, Contender("default", features(name)), PLS, NET, 3)
        for name in ("FrechetSDR", "KernelFrechetSDR", "LinearFrechetSDR")
    ),
    Entry(
        "DynamicSubspaceMetricLearner",
        "digits, half of the rows new, standardised",
        "1 - share of new rows whose nearest new row is of their class",
        nearest_of_class,
        Contender("default", dynamic_learner),
        Contender(
            "NeighborhoodComponentsAnalysis",
            lambda seed: NeighborhoodComponentsAnalysis(16, max_iter=50, random_state=0),
        ),
        Contender("MarginLoss of pytorch-metric-learning", dynamic.BareLoop, "pytorch-metric-learning"),
        2,
    ),
    Entry(
        "RelativeRepresentation",
        "pixels of digits, and the same turned, scaled and shifted; a classifier of the first on the second",
        "1 - accuracy",
        moved_encoder("moved"),
        Contender("100 anchors", always(by_anchors)),
        Contender("Ridge from anchors to anchors", always(by_regression)),
        Contender("orthogonal_procrustes of scipy", always(by_procrustes)),
        3,
    ),
    Entry(
        "StitchedClassifier",
        "digits, hidden layers of two networks of 64 and 128 units; a classifier of the first on the second",
        "1 - accuracy",
        moved_encoder("networks"),
        Contender("100 anchors", always(by_stitching)),
        Contender("Ridge from anchors to anchors", always(by_regression)),
        Contender("orthogonal_procrustes of scipy, padded", always(by_procrustes)),
        3,
    ),
]
