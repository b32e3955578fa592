"""Differential privacy: a classifier of digits, and a density map."""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from sklowrank.privacy import PrivacyLeakWarning, PrivateKernelDensity, PrivateSimilarityClassifier

from .report import Picture, Row, Section

NAME = "PrivateSimilarityClassifier"
NAMES = tuple(f"{NAME}, epsilon={epsilon}" for epsilon in (10, 1, 0.3))


def private_kernel_density():
    """Differential privacy: digits by private and other classifiers."""
    section = Section("Differential privacy", TEXT, NAMES, NOTE, None, "accuracy")
    X, y = load_digits(return_X_y=True)
    print(f"digits, private: {len(X)} rows, 70 % of them fitted, {X.shape[1]} columns, 10 classes", flush=True)
    private = {"bounds": (0, 1), "bandwidth": 1.2, "classes": range(10)}
    methods = {
        "KNeighborsClassifier, no privacy": KNeighborsClassifier(),
        "LogisticRegression, no privacy": LogisticRegression(max_iter=1000),
    }
    budgets = dict(zip(NAMES, (10.0, 1.0, 0.3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyLeakWarning)  # seeds, so that the demo is reproducible
        for name in [*methods, *budgets]:
            scores, seconds = [], []
            for seed in range(5):
                X_fit, X_new, y_fit, y_new = train_test_split(X / 16, y, test_size=0.3, random_state=seed, stratify=y)
                model = methods.get(name)
                if name in budgets:  # rows that are public: releases do not add up
                    model = PrivateSimilarityClassifier(epsilon=budgets[name], random_state=seed, **private)
                start = time.perf_counter()
                scores.append(model.fit(X_fit, y_fit).score(X_new, y_new))
                seconds.append(time.perf_counter() - start)
            ends = min(scores), max(scores)
            section.rows.append(
                Row("digits, private", name, None, float(np.median(scores)), min(seconds), score_range=ends)
            )
        section.pictures = [picture()]
    return section


def picture():
    """A density map, exact and at two values of epsilon."""
    rng = np.random.default_rng(0)
    towns = np.array([[0.25, 0.3], [0.7, 0.65], [0.4, 0.8]])
    X = (towns[rng.integers(0, 3, 20_000)] + 0.06 * rng.normal(size=(20_000, 2))).clip(0, 1)
    side = np.linspace(0, 1, 60)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    exact = np.array([np.exp(-np.square(X - q).sum(1) / (2 * 0.05**2)).mean() for q in grid])
    maps = {"exact, no privacy": exact}
    for epsilon in (1.0, 0.02):
        model = PrivateKernelDensity(epsilon=epsilon, bandwidth=0.05, bounds=(0, 1), random_state=0)
        maps[f"epsilon = {epsilon}"] = model.fit(X).kernel_means(grid)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for axis, (title, means) in zip(axes, maps.items()):
        axis.imshow(means.reshape(60, 60), origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=exact.max())
        axis.set(title=title, xticks=[], yticks=[])
    caption = (
        "Density of 20,000 private points. At epsilon 1 the map looks like the exact one, at 0.02 noise is visible. "
        "The 3,600 queries of a map cost no more privacy than one."
    )
    return Picture("private_map", "A differentially private density map", caption, figure)


NOTE = (
    "Accuracy on held-out rows: median and range over five splits and seeds of the noise. Private methods have "
    "delta 1e-6. Seconds: one fit and its predictions."
)
TEXT = """<p>A fit releases noisy sums under differential privacy: the release is almost as likely without any one
row, and any number of queries can be answered from it. Accuracy increases with <code>epsilon</code> and with the
number of rows. Without a need for privacy nearest neighbours are better.</p>
<pre>accountant = PrivacyAccountant(epsilon=2.0, delta=1e-5)
model = PrivateSimilarityClassifier(epsilon=1.0, classes=range(10), bounds=(0, 16), accountant=accountant).fit(X, y)
model.predict(X_new), model.privacy_spent_, accountant.remaining()</pre>"""
