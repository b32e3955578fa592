"""
What makes two encoders comparable, and what does not
=====================================================

:class:`~sklowrank.metric_learning.RelativeRepresentation` does not see rotations, scales and offsets. Here the same
measurements of wines are embedded by encoders that are farther and farther from the first one, and
:func:`~sklowrank.metric_learning.relative_distance` says how alike they still are before a model is moved.
"""

# %%
# The second encoder turns and shifts the standardised measurements; further ones stretch them along random axes, up to
# a factor between the shortest and the longest.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier, relative_distance

X, y = load_wine(return_X_y=True)
A, B, a, b = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
scaler = StandardScaler().fit(A)
A, B = scaler.transform(A), scaler.transform(B)
rng = np.random.default_rng(0)
left_axes, right_axes = (np.linalg.qr(rng.normal(size=(13, 13)))[0] for _ in range(2))


def encoder(stretch):
    """A linear map whose factors along its axes go from 1 to `stretch`, and an offset."""
    L = left_axes * np.geomspace(1, stretch, 13) @ right_axes
    return lambda rows: rows @ L + 3


# %%
# Rows by their similarities to 60 anchors, of the first encoder and of one that turns and shifts: plain cosines, and
# those seen from the anchors' mean.

anchors = np.arange(60)
turned = encoder(1)
tables = {
    center: [
        RelativeRepresentation(anchors=anchors, center=center).fit(rows).transform(new)
        for rows, new in ((A, B), (turned(A), turned(B)))
    ]
    for center in (False, True)
}

# %%
# Accuracy of one classifier on encoders that stretch, plain and whitened, and how alike these are.

stretches = np.geomspace(1, 100, 9)
scores = {
    whiten: StitchedClassifier(
        LogisticRegression(C=10, max_iter=1000), representation=RelativeRepresentation(anchors=anchors, whiten=whiten)
    ).fit(A, a)
    for whiten in (False, True)
}
accuracy = {
    whiten: [model.adapt(encoder(s)(A)[anchors]).score(encoder(s)(B), b) for s in stretches]
    for whiten, model in scores.items()
}
likeness = [relative_distance(A, encoder(s)(A), anchors=anchors) for s in stretches]

# %%

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for axis, center in zip(axes, (False, True)):
    here, there = tables[center]
    axis.scatter(here.ravel(), there.ravel(), s=2, alpha=0.2, color="#0f766e")
    axis.set(title=f"center={center}", xlabel="first encoder", ylabel="turned and shifted")
    axis.set(xlim=(-1, 1), ylim=(-1, 1))
axes[2].semilogx(stretches, [found.jaccard for found in likeness], color="grey", label="shared neighbours")
axes[2].semilogx(stretches, accuracy[False], color="#c08a3e", marker="o", label="accuracy")
axes[2].semilogx(stretches, accuracy[True], color="#0f766e", marker="o", label="accuracy, whitened")
axes[2].set(title="encoders that stretch", xlabel="longest over shortest axis", ylim=(0, 1.02))
axes[2].legend(fontsize=8)
plt.show()

# %%
# What to see: plain cosines of the two encoders have little in common, because of the offset; seen from the anchors'
# mean they are equal. Where axes are stretched, rows share fewer neighbours, and the classifier loses accuracy. With
# whitening it stays where it is, at a price of some points where there is no stretch.
