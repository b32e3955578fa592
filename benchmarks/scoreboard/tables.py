"""Tables, ratings, coordinates, labels with distances, and private data."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks import data, functional_tucker, loki, matrix_completion, monolith
from benchmarks.harness import rms
from benchmarks.peers import distance_sums_by_trees, kernel_means_by_cosines
from benchmarks.private_kernel_density import kernel_means
from benchmarks.scoreboard import references
from benchmarks.scoreboard.entries import Clock, Contender, Entry

# Protocols: what is fitted and measured


def imputation(make, seed):
    clock, errors = Clock(), []
    for name in ("breast_cancer", "wine", "diabetes", "coil20"):
        X, table, hole = matrix_completion.table_of(name, seed)
        with clock:
            fill = make(seed).fit_transform(table)
        errors.append(matrix_completion.standardised(fill, X, hole))
    return np.mean(errors), clock.seconds


def ratings(make, seed):
    pairs, y, test, true = data.movielens()
    model = make(seed)
    with Clock() as clock:
        guess = model.fit(pairs, y).predict(test)
    return rms(np.clip(guess, 1, 5) - true), clock.seconds


def stream(make, seed):
    return make(seed)


def coordinates(make, seed):
    X, y, X_new, y_new = functional_tucker.temperatures()
    model = make(seed)
    with Clock() as clock:
        guess = model.fit(X, y).predict(X_new)
    return rms(guess - y_new), clock.seconds


def grades(make, seed):
    """Diabetes in 20 bins of equal width, 8 of which have training rows; ten splits."""
    clock, errors = Clock(), []
    for split in range(10):
        X, y, X_new, y_new = loki.bins(split)
        rule = make(seed)
        with clock:
            guess = rule(X, y, X_new)
        errors.append(np.mean((guess - y_new) ** 2))
    return np.mean(errors), clock.seconds


def private_density(make, seed):
    X, Y, h = data.clusters_in_a_plane()
    truth = kernel_means(X, Y, h)
    with Clock() as clock:
        means = make(seed)(X, Y, h)
    return np.abs(means - truth).mean(), clock.seconds


def private_distances(make, seed):
    X, Y, truth = data.distances(30)
    with Clock() as clock:
        sums = make(seed)(X, Y)
    return np.abs(sums - truth).mean() / truth.mean(), clock.seconds


def private_classes(make, seed):
    X, y, _ = data.within_public_ranges("digits")
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    model = make(seed)
    with Clock() as clock:
        labels = model.fit(X, y).predict(X_new)
    return 1 - np.mean(labels == y_new), clock.seconds


# Ours


def imputer(seed):
    from sklowrank.impute import MatrixCompletionImputer

    return MatrixCompletionImputer(random_state=seed)


def factorization(seed):
    from sklowrank.recommend import MatrixFactorizationRegressor

    return MatrixFactorizationRegressor(random_state=seed)


def embeddings(seed):
    found = monolith.pass_over("MovieLens", "ours", 32, {"random_state": seed})
    return found["error"], found["seconds"]


def tucker(seed):
    return functional_tucker.ours(3, kernel="matern12", fit_intercept=False, random_state=seed)


def frechet_means(seed):
    def rule(X, y, X_new):
        model = loki.scaled(LogisticRegression(max_iter=2000)).fit(X, y)
        return loki.loki(model, "numeric", label_space=np.arange(20)).predict(X_new)

    return rule


def kernel_density(seed):
    from sklowrank.privacy import PrivateKernelDensity

    def means(X, Y, h):
        model = PrivateKernelDensity(bandwidth=h, bounds=(0, 1), random_state=seed)
        return model.fit(X).kernel_sums(Y) / len(X)

    return means


def distance_sums(seed):
    from sklowrank.privacy import PrivateDistanceSum

    return lambda X, Y: PrivateDistanceSum(bounds=(0, 1), random_state=seed).fit(X).distance_sums(Y)


def similarities(seed):
    from sklowrank.privacy import PrivateSimilarityClassifier

    return PrivateSimilarityClassifier(bandwidth=1.2, classes=np.arange(10), random_state=seed)


# Plain baselines and peers


def hashed(seed):
    found = monolith.pass_over("MovieLens", "hashed", 32, {})
    return found["error"], found["seconds"]


def vowpal_wabbit(seed):
    found = monolith.by_vowpal_wabbit("MovieLens", "")
    return found["error"], found["seconds"]


def ridge_of_pairs(seed):
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(alpha=5.0))


def rounded_ridge(seed):
    def rule(X, y, X_new):
        guess = loki.scaled(Ridge()).fit(X, y).predict(X_new)
        return np.clip(np.rint(guess), 0, 19)

    return rule


def expected_bin(seed):
    def rule(X, y, X_new):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(X, y)
        return np.rint(model.predict_proba(X_new) @ model.classes_)

    return rule


ENTRIES = [
    Entry(
        "MatrixCompletionImputer",
        "breast cancer, wine, diabetes and objects (coil20, 8 x 8 pixels), 30 % of the cells hidden",
        "root mean square, columns in standard deviations, mean of the tables",
        imputation,
        Contender("default", imputer),
        Contender("IterativeImputer", lambda seed: IterativeImputer(random_state=0)),
        Contender("soft-impute in numpy", lambda seed: references.SoftImpute()),
        seeds=1,
        needs=("coil20",),
    ),
    Entry(
        "MatrixFactorizationRegressor",
        "MovieLens-100k, u1 split",
        "root mean squared error of ratings",
        ratings,
        Contender("default", factorization),
        Contender("Ridge on one-hot users and films", ridge_of_pairs),
        Contender("ALS-WR in numpy", lambda seed: references.AlternatingLeastSquares(seed=seed)),
        needs=("movielens_100k",),
    ),
    Entry(
        "OnlineEmbeddingClassifier, OnlineEmbeddingRegressor",
        "MovieLens-100k in the order of time, each row predicted, then learnt; batches of 32",
        "1 - AUC",
        stream,
        Contender("default", embeddings),
        Contender("FeatureHasher and SGDClassifier", hashed),
        Contender("Vowpal Wabbit, row by row", vowpal_wabbit, "vowpalwabbit"),
        seeds=1,
        needs=("movielens_100k",),
    ),
    Entry(
        "FunctionalTuckerRegressor",
        "US temperatures, a fifth of the cells of latitude, longitude and year held out",
        "root mean squared error, °F",
        coordinates,
        Contender("rank 3, matern12", tucker),
        Contender(
            "HistGradientBoostingRegressor", lambda seed: HistGradientBoostingRegressor(max_iter=300, random_state=seed)
        ),
        Contender("products of splines, ridge", lambda seed: references.TensorSplines()),
        needs=("us_temp",),
    ),
    Entry(
        "LokiClassifier",
        "diabetes in 20 bins, 8 of them with training rows; ten splits",
        "mean squared distance of bins",
        grades,
        Contender("around LogisticRegression", frechet_means),
        Contender("Ridge, rounded", rounded_ridge),
        Contender("expected bin, rounded", expected_bin),
        seeds=1,
    ),
    Entry(
        "PrivateKernelDensity",
        "20,000 rows of a plane, mean kernel of bandwidth 0.1 at 400 queries, epsilon = 1",
        "mean absolute error",
        private_density,
        Contender("bounds=(0, 1)", kernel_density),
        Contender(
            "random cosines with Laplace noise",
            lambda seed: lambda X, Y, h: kernel_means_by_cosines(X, Y, h, 1, 1000, seed),
        ),
        Contender("histogram with Laplace noise", lambda seed: lambda X, Y, h: references.noisy_grid(X, Y, h, 1, seed)),
        seeds=3,
    ),
    Entry(
        "PrivateDistanceSum",
        "2,000 rows of 30 columns, sums of absolute differences to 50 queries, epsilon = 1",
        "mean absolute error over the mean sum",
        private_distances,
        Contender("bounds=(0, 1)", distance_sums),
        Contender("histograms with Laplace noise", lambda seed: lambda X, Y: references.noisy_columns(X, Y, seed)),
        Contender("trees of counts with Laplace noise", lambda seed: lambda X, Y: distance_sums_by_trees(X, Y, seed)),
        seeds=3,
    ),
    Entry(
        "PrivateSimilarityClassifier",
        "digits, epsilon = 1; the plain baseline is not private",
        "1 - accuracy",
        private_classes,
        Contender("bandwidth 1.2", similarities),
        Contender("KNeighborsClassifier, not private", lambda seed: KNeighborsClassifier()),
        Contender("nearest of noisy class means", lambda seed: references.NoisyMeans(seed)),
        seeds=3,
    ),
]
