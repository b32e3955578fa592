"""
Partners of digits by a few known pairs
=======================================

Two tables describe the same images in different columns: one has principal components, the other the same rotated at
random, with noise, and with its rows shuffled. Twenty pairs of rows are known.
:class:`~sklowrank.manifold.FunctionalMapAligner` finds the others.
"""

# %%
# The digits bundled with scikit-learn, 900 of them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklowrank.manifold import FunctionalMapAligner

rng = np.random.RandomState(5)
images, y = load_digits(return_X_y=True)
X = PCA(20, random_state=0).fit_transform(images)[:900]
X /= X.std()
rotation, order = np.linalg.qr(rng.randn(20, 20))[0], rng.permutation(900)
target = (X @ rotation + 0.02 * rng.randn(900, 20))[order]
place = np.argsort(order)  # where each row of X is in the target

# %%
# With 20 known pairs in 20 dimensions a rotation can be computed as well; with fewer it is not determined, but
# eigenfunctions can be compared. The functional map does not use that the tables are rigid versions of one another.


def by_rotation(known, rounds=0):
    """Nearest rows after the rotation that brings known pairs together, and rounds of closest points after it."""
    rows, goal = X[known], target[place[known]]
    for _ in range(rounds + 1):
        U, _, Vh = np.linalg.svd(rows.T @ goal)
        turned = X @ (U @ Vh)
        partners = ((turned**2).sum(1) - 2 * target @ turned.T).argmin(1)
        rows, goal = X[partners], target
    return partners


numbers = (3, 5, 8, 12, 20)
rights = {"functional map": [], "rotation": [], "rotation, then closest points": []}
for n in numbers:
    known = rng.choice(900, n, replace=False)
    model = FunctionalMapAligner(init="landmarks", landmarks=(known, place[known]), random_state=0)
    model.fit(X, X_target=target)
    rights["functional map"].append(np.mean(model.correspondence_ == order))
    rights["rotation"].append(np.mean(by_rotation(known) == order))
    rights["rotation, then closest points"].append(np.mean(by_rotation(known, rounds=30) == order))
    print(f"{n} pairs:", ", ".join(f"{name} {shares[-1]:.3f}" for name, shares in rights.items()))

# %%
# The shares of right partners, and some target rows above the images of their partners for the last fit.

figure = plt.figure(figsize=(11, 3.6), layout="constrained")
left, right = figure.subfigures(1, 2)
axis = left.subplots()
for (name, shares), colour in zip(rights.items(), ("#0f766e", "#c08a3e", "#64748b")):
    axis.plot(numbers, shares, "o-", alpha=0.8, color=colour, label=name)
axis.set(xlabel="known pairs", ylabel="right partners", ylim=(0, 1.05))
axis.legend(frameon=False)
cells = right.subplots(2, 8)
for column, row in zip(cells.T, rng.choice(900, 8, replace=False)):
    for cell, image in zip(column, (images[order[row]], images[model.correspondence_[row]])):
        cell.imshow(image.reshape(8, 8), cmap="Greys")
        cell.set_axis_off()
right.suptitle("target rows, and their partners below")
plt.show()

# %%
# What to see: the functional map needs three known pairs, the rotation as many as there are columns. With closest
# points after it three suffice too, because the tables are rigid versions of one another: for such tables use it rather
# than the functional map. Rows and the partners below them are the same images.
