"""
Persistence vectors of a measured value: rings and arcs
=======================================================

Points are spread evenly over a square and carry a measured value. In one class it is low near a ring, in the other near
a ring with a gap. Neither where the points are nor which values there are tells the classes apart: only both together
do.
"""

# %%
# The values are replaced by their ranks, so that all objects have the same ones.

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist, pdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from sklowrank.inspection import PersistenceSurfaceDisplay
from sklowrank.topology import MultiparameterPersistence

rng = np.random.default_rng(0)


def cloud(gap, n_points=80):
    """Points in a square, and ranks of their noisy distance to a ring that has a gap of some angle."""
    points, radius, start = rng.random((n_points, 2)), rng.uniform(0.22, 0.34), rng.uniform(0, 2 * np.pi)
    places = points - 0.5 - rng.uniform(-0.1, 0.1, size=2)
    value = np.abs(np.hypot(*places.T) - radius)
    if gap:
        ends = radius * np.array([[np.cos(start), np.sin(start)], [np.cos(start - gap), np.sin(start - gap)]])
        beside = (np.arctan2(places[:, 1], places[:, 0]) - start) % (2 * np.pi) >= 2 * np.pi - gap
        value = np.where(beside, cdist(places, ends).min(axis=1), value)
    value = value + 0.05 * radius * rng.normal(size=n_points)
    return np.c_[points, value.argsort().argsort() / (n_points - 1)]


y = np.repeat([0, 1], 40)
X = [cloud(gap=label * 2 * np.pi / 3) for label in y]

# %%
# The last column is the second function. A histogram of pairs of points, by distance and difference of values, is the
# simplest alternative: it depends on both functions, but on no shape.

model = MultiparameterPersistence(second="column", max_edge=0.45, resolution=(11, 16)).fit(X)
features = {
    "persistence vectors": model.transform(X),
    "histogram of pairs": [np.histogram2d(pdist(c[:, :2]), pdist(c[:, 2:]), (12, 8))[0].ravel() for c in X],
    "histogram of distances": [np.histogram(pdist(c[:, :2]), 20)[0] for c in X],
}
for name, values in features.items():
    forest = RandomForestClassifier(200, random_state=0)
    print(f"{name}: accuracy {cross_val_score(forest, values, y, cv=5).mean():.2f}")

# %%
# A cloud of each class, and below the mean surfaces of loops of the classes.

figure, panels = plt.subplots(2, 2, figsize=(8.6, 7.2), layout="constrained")
for label, column in enumerate(panels.T):
    one = X[int(np.flatnonzero(y == label)[0])]
    column[0].scatter(*one[:, :2].T, c=one[:, 2], cmap="magma", s=25)
    column[0].set(title=("low values on a ring", "low values on an arc")[label], aspect="equal", xticks=[], yticks=[])
    of_class = [c for c, k in zip(X, y) if k == label]
    PersistenceSurfaceDisplay.from_estimator(model, of_class, degree=1, ax=column[1])
plt.show()

# %%
# What to see: on the lower right, at lengths between 0.25 and 0.6 and values below 0.5, the ring has a band of loops:
# its points are joined there, and the inside is not yet filled. Where the ring has a gap the band is missing. The
# bright field at high values, in both classes, has the short loops between points that are spread evenly.
