"""Shapes: embeddings, vector fields, correspondences, persistent homology, optimal transport."""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import Isomap
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import class_separability as separability
from benchmarks import functional_map_alignment as alignment
from benchmarks import heat_geodesic_embedding as geodesic
from benchmarks import manifold_vector_field_gp as fields
from benchmarks import multiparameter_persistence as persistence
from benchmarks import sinkhorn_newton_sparse as transport
from benchmarks.scoreboard.entries import Clock, Contender, Entry

# Protocols


def noisy_roll(make, seed):
    X, G = geodesic.roll(1.0, seed=seed)
    model = make(seed)
    with Clock() as clock:
        E = model.fit_transform(X)
    return 1 - geodesic.row_spearman(cdist(E, E), G), clock.seconds


def field_on_a_sphere(make, seed):
    X, F, random = fields.cloud("sphere", seed)
    y, given = fields.labelled(F, random, 120)
    with Clock() as clock:
        guess = make(seed)(X, y, given)
    return fields.lost(guess[~given], F[~given]), clock.seconds


def bent_sheets(make, seed):
    """Pairs on which nothing was chosen, rolled up to radius 0.6."""
    source, goal = alignment.sheet(900, 100 + seed), alignment.sheet(800, 200 + seed)
    X, T = alignment.flat(source), alignment.rolled(goal, 0.6)
    with Clock() as clock:
        partners = make(seed)(X, T)
    return np.linalg.norm(source[partners] - goal, axis=1).mean(), clock.seconds


def rings_in_values(make, seed):
    """The better of a forest and a logistic regression on features, five folds."""
    X, y = persistence.rings_and_arcs(0.05)
    with Clock() as clock:
        V = make(seed)(X)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    forest = RandomForestClassifier(200, random_state=0)
    return 1 - max(cross_val_score(model, V, y, cv=folds).mean() for model in (forest, linear)), clock.seconds


def ladders(make, seed):
    """Ten tables each of two and four groups that move apart: rank correlation with what labels would say."""
    clock, errors = Clock(), []
    for k in (2, 4):
        tables = separability.ladder(k)
        right = [cross_val_score(LogisticRegression(), X, y, cv=3).mean() for X, y in tables]
        judge = make(seed)
        with clock:
            scores = [judge(X, k) for X, _ in tables]
        errors.append(1 - spearmanr(scores, right)[0])
    return np.mean(errors), clock.seconds


def marginals(make, seed):
    """How far a plan between two images is from their masses, in l1; below 1e-9, the tolerance, all is equal."""
    a, b, C, reg = transport.problem("digits, sqeuclidean")
    with Clock() as clock:
        plan = make(seed)(a, b, C, reg)
    return max(np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum(), 1e-9), clock.seconds


def turned_camera(make, seed):
    X, y, T, t = transport.tables("digits 20", seed)
    with Clock() as clock:
        labels = make(seed)(X, y, T)
    return 1 - np.mean(labels == t), clock.seconds


# Contenders


def heat(seed):
    from sklowrank.manifold import HeatGeodesicEmbedding

    return HeatGeodesicEmbedding(random_state=seed)


def phate(seed):
    import phate

    return phate.PHATE(knn=10, n_jobs=1, verbose=0, random_state=seed)


def vector_field(seed):
    return lambda X, y, given: fields.ours().fit(X, y).predict(X)


def process_of_coordinates(seed):
    return lambda X, y, given: fields.by_coordinates(X[given], y[given]).predict(X)


class SpectralProcess:
    """A Gaussian process on eigenvectors of the Laplacian of robust_laplacian, each coordinate by itself."""

    def __init__(self, seed, n_components=60):
        self.k = n_components

    def __call__(self, X, y, given):
        import robust_laplacian
        from scipy.optimize import minimize
        from scipy.sparse.linalg import eigsh

        L, M = robust_laplacian.point_cloud_laplacian(X)
        w, V = eigsh(L, self.k, M, sigma=-1e-8)
        w, A, Y = np.maximum(w, 0), V[given], y[given]

        def parts(theta):
            scale, length, noise = np.exp(theta)
            prior = scale * (2 / length**2 + w) ** -2.5
            return prior, (A * prior) @ A.T + noise * np.eye(len(A))

        def loss(theta):
            K = parts(theta)[1]
            half = np.linalg.solve(np.linalg.cholesky(K), Y)
            return 0.5 * np.square(half).sum() + Y.shape[1] * 0.5 * np.linalg.slogdet(K)[1]

        theta = minimize(loss, np.log([100.0, 0.5, 0.01]), method="Nelder-Mead", options={"maxiter": 200}).x
        prior, K = parts(theta)
        return (V * prior) @ A.T @ np.linalg.solve(K, Y)


def functional_maps(seed):
    return lambda X, T: alignment.aligner().fit(X, X_target=T).correspondence_


def other_alignment(name):
    return lambda seed: lambda X, T: alignment.PEERS[name](X, T, seed)


def of_two_functions(seed):
    return persistence.ours(second="column").fit_transform


def plain_features(kind):
    return lambda seed: lambda X: persistence.plain(X, kind, True)


def by_persistence(seed):
    return lambda X, k: separability.model(random_state=seed).fit(X).score_


def by_silhouette(seed):
    return lambda X, k: separability.of_kmeans(X, k)


def by_ripser(seed):
    """The shortest of the bars between k groups over the mean of all other bars, by ripser."""

    def judge(X, k):
        from ripser import ripser

        bars = np.sort(ripser(X, maxdim=0)["dgms"][0][:-1, 1])[::-1]
        return bars[k - 2] / bars[k - 1 :].mean()

    return judge


def newton(seed):
    from sklowrank.transport import sinkhorn_newton

    return lambda a, b, C, reg: sinkhorn_newton(a, b, C, reg, tol=1e-9).plan


def sweeps(seed):
    """Sinkhorn's algorithm in numpy."""

    def plan(a, b, C, reg):
        K, v = np.exp(-C / reg), np.ones(len(b))
        for step in range(20_000):
            u = a / (K @ v)
            v = b / (K.T @ u)
            if step % 10 == 9 and np.abs(u * (K @ v) - a).sum() < 1e-9:
                break
        return u[:, None] * K * v

    return plan


def pot_sinkhorn(seed):
    import ot

    return lambda a, b, C, reg: ot.sinkhorn(a, b, C, reg, stopThr=1e-9 / len(a) ** 0.5, numItermax=20_000)


def adapted(seed):
    from sklowrank.transport import OTAdaptationClassifier

    return lambda X, y, T: OTAdaptationClassifier(KNeighborsClassifier()).fit(X, y, X_target=T).predict(T)


def prepared(how):
    def make(seed):
        def labels(X, y, T):
            X, T = transport.prepared(how, X, y, T)
            return KNeighborsClassifier().fit(X, y).predict(T)

        return labels

    return make


ENTRIES = [
    Entry(
        "HeatGeodesicEmbedding",
        "a rolled strip with noise that connects its turns, 800 rows; in two dimensions",
        "1 - rank correlation of distances with the geodesics",
        noisy_roll,
        Contender("default", heat),
        Contender("Isomap", lambda seed: Isomap(n_neighbors=10)),
        Contender("PHATE", phate, "phate"),
        3,
    ),
    Entry(
        "ManifoldVectorFieldRegressor",
        "tangent vectors on a sphere, 600 points, 120 of them with noisy labels",
        "1 - R²",
        field_on_a_sphere,
        Contender("default", vector_field),
        Contender("GaussianProcessRegressor", process_of_coordinates),
        Contender("Gaussian process on eigenvectors of robust_laplacian", SpectralProcess, "robust_laplacian"),
        3,
    ),
    Entry(
        "FunctionalMapAligner",
        "a flat sheet and one that is rolled up, 900 and 800 points",
        "mean distance on the sheet to the true partner",
        bent_sheets,
        Contender("default", functional_maps),
        Contender("closest points with a rigid motion", other_alignment("closest points, rigid")),
        Contender("Gromov-Wasserstein of POT", other_alignment("Gromov-Wasserstein"), "POT"),
        2,
    ),
    Entry(
        "MultiparameterPersistence",
        "160 clouds whose values are low near a ring, or near a ring with a gap",
        "1 - accuracy",
        rings_in_values,
        Contender("default, the value as second function", of_two_functions),
        Contender("histogram of pairs by distance and difference of values", plain_features("pairs")),
        Contender("one-parameter persistence of gudhi", plain_features("one-parameter"), "gudhi"),
        1,
    ),
    Entry(
        "PersistenceSeparability",
        "tables of two and of four groups that move apart; the others are told how many groups",
        "1 - rank correlation with the accuracy of labels",
        ladders,
        Contender("default", by_persistence),
        Contender("silhouette of KMeans", by_silhouette),
        Contender("bars of ripser, between groups over others", by_ripser, "ripser"),
        1,
    ),
    Entry(
        "SinkhornTransport",
        "two digits on a grid of 24 x 24, regularisation 1/1200",
        "l1 error of the marginals, at least 1e-9",
        marginals,
        Contender("sinkhorn_newton", newton),
        Contender("sweeps in numpy", sweeps),
        Contender("sinkhorn of POT", pot_sinkhorn, "POT"),
        1,
    ),
    Entry(
        "OTAdaptationClassifier, OTAdaptationRegressor",
        "digits, and digits of a camera that is turned by 20 degrees; five neighbours",
        "1 - accuracy",
        turned_camera,
        Contender("default", adapted),
        Contender("five neighbours as they are", prepared("as it is")),
        Contender("exact transport of POT", prepared("POT emd"), "POT"),
        3,
    ),
]
