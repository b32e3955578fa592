"""
One dial from prediction to reconstruction
==========================================

:class:`~sklowrank.decomposition.SupervisedDictionaryLearning` learns a few components that are meant to do two things:
tell the classes apart, and rebuild the rows. Its parameter ``xi`` says how much the second counts.
"""

# %%
# Handwritten digits, half of them to learn from, and four components.

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
    """The share of the squares of new rows, about the training mean, that the components do not rebuild."""
    rebuilt = model.inverse_transform(model.transform(X_test))
    return ((X_test - rebuilt) ** 2).sum() / ((X_test - X_train.mean(axis=0)) ** 2).sum()


# %%
# The dial from one end to the other, and principal components with a logistic regression on them.

dial = np.geomspace(0.01, 10, 10)
models = [SupervisedDictionaryLearning(4, xi=xi, random_state=0).fit(X_train, y_train) for xi in dial]
accuracy, error = [model.score(X_test, y_test) for model in models], [lost(model) for model in models]
plain = make_pipeline(PCA(4), LogisticRegression(max_iter=1000)).fit(X_train, y_train)

# %%

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
axes.semilogx(dial, accuracy, "o-", color="#0f766e", label="accuracy on new rows")
axes.semilogx(dial, error, "s--", color="#c08a3e", label="share of new rows not rebuilt")
axes.axhline(plain.score(X_test, y_test), color="#0f766e", linestyle=":", linewidth=1)
axes.axhline(lost(plain["pca"]), color="#c08a3e", linestyle=":", linewidth=1)
axes.set(xlabel="xi", ylim=(0, 1))
axes.annotate("dotted: principal components", (dial[0], lost(plain["pca"])), (0, 5), textcoords="offset points")
axes.legend(loc="lower left", bbox_to_anchor=(0, 0.05), frameon=False)
plt.show()

# %%
# The components at three positions, each with the digit it speaks for most.

chosen = [models[0], models[6], models[-1]]
figure, axes = plt.subplots(3, 4, figsize=(7, 6), layout="constrained")
for row, model in zip(axes, chosen):
    DictionaryDisplay.from_estimator(model, image_shape=(8, 8), axes=row)
    row[0].set_ylabel(f"xi={model.xi:.2g}")
plt.show()

# %%
# What to see: at the left end four components tell the ten digits apart far better than principal components do, and
# rebuild less. At the right end they are nearly principal components. The default, 0.1, stands on the side of
# prediction; about 1 is halfway.
