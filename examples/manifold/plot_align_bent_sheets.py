"""
Partners on a bent sheet
========================

A flat sheet and a rolled one, with different points: which point of one is which of the other? In space the two ends of
the roll are close together. :class:`~sklowrank.manifold.FunctionalMapAligner` compares eigenfunctions of the Laplacian,
which bending does not change.
"""

# %%
# A corner is cut off, so that the sheet has no symmetry. The roll has other points than the flat sheet, and wrinkles.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import NearestNeighbors

from sklowrank.manifold import FunctionalMapAligner


def sheet(n, seed):
    uv = np.random.RandomState(seed).rand(4 * n, 2) * [2, 1]
    return uv[(uv[:, 1] < 1 - uv[:, 0] / 4) | (uv[:, 0] < 0.5)][:n]


source, goal = sheet(900, 0), sheet(800, 1)
flat = np.c_[source, np.zeros(900)]
r = 0.45 + 0.03 * np.sin(9 * goal[:, 0] + 2 * goal[:, 1])
rolled = np.c_[r * np.sin(goal[:, 0] / 0.45), goal[:, 1], 0.45 - r * np.cos(goal[:, 0] / 0.45)]

# %%
# Partners of the rolled points, by the nearest flat point and by the functional map. The true places on the sheet are
# used for the errors alone.

model = FunctionalMapAligner(random_state=0).fit(flat, X_target=rolled)
nearest = NearestNeighbors(n_neighbors=1).fit(flat).kneighbors(rolled, return_distance=False)[:, 0]
for name, partners in (("nearest points", nearest), ("functional map", model.correspondence_)):
    gaps = np.linalg.norm(source[partners] - goal, axis=1)
    print(f"{name}: mean error {gaps.mean():.3f}, within 0.05: {np.mean(gaps < 0.05):.0%}")
print(f"there and back: {model.cycle_error_:.3f} of the size of the sheet")

# %%
# Each point of the roll in the colour of its partner on the flat sheet.


def colours(uv):
    return np.c_[uv[:, 0] / 2, 0.25 + 0.5 * uv[:, 1], 1 - uv[:, 0] / 2]


figure = plt.figure(figsize=(12, 4), layout="constrained")
shown = (
    ("source", flat, source),
    ("target, by nearest points", rolled, source[nearest]),
    ("target, by the functional map", rolled, source[model.correspondence_]),
)
for i, (title, points, places) in enumerate(shown, 1):
    axis = figure.add_subplot(1, 3, i, projection="3d")
    axis.scatter(*points.T, c=colours(places), s=8)
    axis.set(title=title, xticks=[], yticks=[], zticks=[], aspect="equal")
    axis.view_init(elev=20, azim=-75)
plt.show()

# %%
# What to see: of nearest points the orange end of the sheet has no partners: the outer part of the roll is far from it,
# and takes the colours of the blue end. By the functional map colours run along the roll as along the flat sheet.
