"""
Prediction against reconstruction: the parameter xi, on digits
==============================================================

:class:`~sklowrank.decomposition.SupervisedDictionaryLearning` learns a few components that separate the classes and
reconstruct the rows. Its parameter ``xi`` is the weight of the reconstruction.
"""

# %%
# Handwritten digits, half of them fitted, and four components.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.inspection import DictionaryDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.5, stratify=y, random_state=0)


def lost(model):
    """Reconstruction error of new rows, relative to their squares about the training mean."""
    rebuilt = model.inverse_transform(model.transform(X_test))
    return ((X_test - rebuilt) ** 2).sum() / ((X_test - X_train.mean(axis=0)) ** 2).sum()


# %%
# A range of ``xi``, and logistic regression on principal components.

xis = np.geomspace(0.01, 10, 10)
models = [SupervisedDictionaryLearning(4, xi=xi, random_state=0).fit(X_train, y_train) for xi in xis]
accuracy, error = [model.score(X_test, y_test) for model in models], [lost(model) for model in models]
plain = make_pipeline(PCA(4), LogisticRegression(max_iter=1000)).fit(X_train, y_train)

# %%

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
axes.semilogx(xis, accuracy, "o-", color="#0f766e", label="accuracy on new rows")
axes.semilogx(xis, error, "s--", color="#c08a3e", label="reconstruction error on new rows")
axes.axhline(plain.score(X_test, y_test), color="#0f766e", linestyle=":", linewidth=1)
axes.axhline(lost(plain["pca"]), color="#c08a3e", linestyle=":", linewidth=1)
axes.set(xlabel="xi", ylim=(0, 1))
axes.annotate("dotted: principal components", (xis[0], lost(plain["pca"])), (0, 5), textcoords="offset points")
axes.legend(loc="lower left", bbox_to_anchor=(0, 0.05), frameon=False)
plt.show()

# %%
# The components at three values of ``xi``, each with the class of its largest coefficient.

chosen = [models[0], models[6], models[-1]]
figure, axes = plt.subplots(3, 4, figsize=(7, 6), layout="constrained")
for row, model in zip(axes, chosen):
    DictionaryDisplay.from_estimator(model, image_shape=(8, 8), axes=row)
    row[0].set_ylabel(f"xi={model.xi:.2g}")
plt.show()

# %%
# What to see: at small values of xi four components separate the ten digits far better than principal components do,
# with a larger reconstruction error. At large values they are nearly principal components. The default, 0.1, favours
# prediction; about 1 balances both.
