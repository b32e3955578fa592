"""
Classes of digits from few labels: numbers on a cloud of images
===============================================================

:class:`~sklowrank.manifold.ManifoldVectorFieldRegressor` also predicts numbers. Here they are ten columns, one for each
class, 1 for the images of the class and 0 for others. All images are known, and few of their classes. The largest of
the ten predictions is the class. The same is done by a Gaussian process on the pixels, and by label spreading.
"""

# %%
# All digits bundled with scikit-learn, and three draws of the images whose class is known.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.semi_supervised import LabelSpreading

from sklowrank.manifold import ManifoldVectorFieldRegressor

X, y = load_digits(return_X_y=True)
X, columns = X / 16, np.eye(10)[y]


def draw(n_labels, seed):
    known = np.zeros(len(X), dtype=bool)
    known[np.random.default_rng(seed).choice(len(X), n_labels, replace=False)] = True
    return known


def on_the_graph(known):
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, np.where(known[:, None], columns, np.nan))
    return model.predict(X).argmax(1)


def on_pixels(known):
    kernel = ConstantKernel() * Matern(nu=1.5) + WhiteKernel(0.01)
    return GaussianProcessRegressor(kernel, random_state=0).fit(X[known], columns[known]).predict(X).argmax(1)


def spreading(known):
    return LabelSpreading(kernel="knn", n_neighbors=10).fit(X, np.where(known, y, -1)).transduction_


# %%
# Accuracy at the images without a label.

methods = {"this regressor": on_the_graph, "Gaussian process on pixels": on_pixels, "LabelSpreading": spreading}
sizes = [30, 60, 120, 240]
accuracy = {name: [] for name in methods}
for n_labels in sizes:
    for name, method in methods.items():
        draws = [draw(n_labels, seed) for seed in range(3)]
        accuracy[name].append(np.mean([(method(known) == y)[~known].mean() for known in draws]))
for name, row in accuracy.items():
    print(f"{name:28}", *(f"{value:.3f}" for value in row))

# %%
# The standard deviation says where there was no label nearby: errors are more frequent where it is large.

known = draw(60, 0)
model = ManifoldVectorFieldRegressor(random_state=0).fit(X, np.where(known[:, None], columns, np.nan))
mean, std = model.predict(X, return_std=True)
wrong, order = (mean.argmax(1) != y)[~known], std[~known, 0].argsort()
print("errors by fifths of the deviation", *(f"{part.mean():.3f}" for part in np.array_split(wrong[order], 5)))

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (name, row), colour in zip(accuracy.items(), ["#0f766e", "#c08a3e", "#7c6fb0"]):
    left.plot(sizes, row, "o-", color=colour, label=name)
left.set(xscale="log", xticks=sizes, xticklabels=sizes, xlabel="labels", ylabel="accuracy without a label")
left.minorticks_off()
left.legend()
right.bar(range(1, 6), [part.mean() for part in np.array_split(wrong[order], 5)], color="#0f766e")
right.set(xlabel="fifth of the images by standard deviation", ylabel="share of errors, 60 labels")
plt.show()

# %%
# What to see: the graph of all images helps most where labels are few: the regressor is ahead of a Gaussian process
# that uses labelled images alone, by less with more labels. Errors are most frequent where the deviation is large.
