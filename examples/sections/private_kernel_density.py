"""Answers about rows that are protected: a density, and digits at a budget of one."""

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
    """Digits by classifiers with and without differential privacy."""
    section = Section("Differential privacy", TEXT, NAMES, NOTE, None, "accuracy")
    X, y = load_digits(return_X_y=True)
    X, X_new, y, y_new = train_test_split(X / 16, y, test_size=0.3, random_state=0, stratify=y)
    print(f"digits, private: {X.shape[0]} rows, {X.shape[1]} columns, 10 classes", flush=True)
    private = {"bounds": (0, 1), "bandwidth": 1.2, "classes": range(10), "random_state": 0}
    methods = {
        "KNeighborsClassifier, no privacy": KNeighborsClassifier(),
        "LogisticRegression, no privacy": LogisticRegression(max_iter=1000),
    }
    methods |= {
        name: PrivateSimilarityClassifier(epsilon=epsilon, **private) for name, epsilon in zip(NAMES, (10.0, 1.0, 0.3))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyLeakWarning)  # seeds: the demo prints the same twice
        for name, model in methods.items():
            start = time.perf_counter()
            score = model.fit(X, y).score(X_new, y_new)
            section.rows.append(Row("digits, private", name, None, score, time.perf_counter() - start))
        section.pictures = [picture()]
    return section


def picture():
    """A map of private places, exact and at two budgets."""
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
        "Where 20,000 private places are. At a budget of one the map cannot be told from the exact one; at 0.02 the "
        "noise is seen. The 3,600 points of a map cost no more than one."
    )
    return Picture("private_map", "A map that betrays nobody", caption, figure)


NOTE = "Accuracy: share of held-out digits that are labelled right. Private methods guarantee epsilon, and delta 1e-6."
TEXT = """<p>A fit releases noisy sums once; whatever is asked of them later, each private row stays protected: the
release would be nearly as likely without it. The price is accuracy: it falls with the budget <code>epsilon</code>, and
rises with the number of rows. Without a need for privacy, neighbours are better.</p>
<pre>purse = PrivacyAccountant(epsilon=2.0, delta=1e-5)
model = PrivateSimilarityClassifier(epsilon=1.0, classes=range(10), bounds=(0, 16), accountant=purse).fit(X, y)
model.predict(X_new), model.privacy_spent_, purse.remaining()</pre>"""
