"""
One classifier for several encoders of digits
=============================================

A classifier of embeddings is useless once the encoder is replaced: the new embeddings have other axes, and often
another width. :class:`~sklowrank.metric_learning.StitchedClassifier` is fitted once, to similarities with anchor rows,
and is adapted to each further encoder by the same anchors, without labels and without training. Here the encoders are
networks of different seeds and widths, principal components, and pixels that are turned and shifted.
"""

# %%
# Five encoders of the same digits. The classifier is fitted to embeddings of the first one alone.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier

X, y = load_digits(return_X_y=True)
A, B, a, b = train_test_split(X / 16, y, test_size=0.4, stratify=y, random_state=0)


def hidden(width, seed):
    """What the hidden layer of a network says of training and test rows."""
    net = MLPClassifier((width,), activation="tanh", learning_rate_init=3e-3, max_iter=60, random_state=seed, tol=0.01)
    net.fit(A, a)
    return [np.tanh(rows @ net.coefs_[0] + net.intercepts_[0]) for rows in (A, B)]


Q = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
pca = PCA(30, random_state=0).fit(A)
encoders = {
    "network, 64 units": hidden(64, 0),
    "network, 64 units,\nanother seed": hidden(64, 1),
    "network, 128 units": hidden(128, 2),
    "30 principal\ncomponents": [pca.transform(A), pca.transform(B)],
    "pixels, turned\nand shifted": [A @ Q + 2, B @ Q + 2],
}

# %%
# 100 anchors, given by their indices. `adapt` asks for what the other encoder makes of them.

head = LogisticRegression(C=10, max_iter=2000)
train, test = encoders["network, 64 units"]
model = StitchedClassifier(head, representation=RelativeRepresentation(100, random_state=0)).fit(train, a)
absolute = LogisticRegression(C=10, max_iter=2000).fit(train, a)
stitched, raw = [], []
for name, (other, new) in encoders.items():
    stitched.append(model.adapt(other[model.anchor_indices_]).score(new, b))
    raw.append(absolute.score(new, b) if new.shape[1] == test.shape[1] else np.nan)
    print(f"{' '.join(name.split())}: relative rows {stitched[-1]:.3f}, absolute rows {raw[-1]:.3f}")

# %%
# How many anchors are needed, for the network of 128 units.

numbers, accuracy = [5, 10, 20, 50, 100, 200], []
other, new = encoders["network, 128 units"]
for m in numbers:
    few = StitchedClassifier(head, representation=RelativeRepresentation(m, random_state=0)).fit(train, a)
    accuracy.append((few.score(test, b), few.adapt(other[few.anchor_indices_]).score(new, b)))

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(3, 2))
place = np.arange(len(encoders))
left.barh(place - 0.2, stitched, 0.38, color="#0f766e", label="relative rows")
left.barh(place + 0.2, np.nan_to_num(raw), 0.38, color="#c08a3e", label="absolute rows")
for i in np.flatnonzero(np.isnan(raw)):
    left.text(0.01, i + 0.2, "another width: no prediction", va="center", fontsize=8)
left.set(yticks=place, yticklabels=list(encoders), xlabel="accuracy on new digits", xlim=(0, 1))
left.invert_yaxis()
left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
own, there = np.transpose(accuracy)
right.semilogx(numbers, own, color="grey", marker="o", label="the encoder of the fit")
right.semilogx(numbers, there, color="#0f766e", marker="o", label="128 units, adapted")
right.set(xlabel="anchors", ylabel="accuracy on new digits", xticks=numbers, xticklabels=numbers)
right.minorticks_off()
right.legend(frameon=False)
plt.show()

# %%
# What to see: the classifier of the first network works as well on the other two networks, whatever their width. On
# absolute rows it is near to guessing for each other encoder. Principal components and pixels arrange the digits in
# another way than networks that were trained on their classes do: there accuracy falls to about 0.83. For the encoder
# of the fit absolute rows are better by two points, which is the price. Some 20 anchors suffice here.
