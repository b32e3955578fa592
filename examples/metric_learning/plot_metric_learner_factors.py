"""
Learners, wrong labels and the gate
===================================

A class that appears in several forms: the exclusive or of two columns, among ten columns of noise, with a fifth of the
training labels wrong. :class:`~sklowrank.metric_learning.DynamicSubspaceMetricLearner` adds learners when its loss
stalls. Its gate, on measurements of breast tumours, finds columns of noise.
"""

# %%
# Three networks: as it is by default, with one learner, and without dropout; and a linear metric.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.preprocessing import StandardScaler

from sklowrank.metric_learning import DynamicSubspaceMetricLearner

rng = np.random.default_rng(0)
factors = rng.integers(0, 2, (1600, 2))
y = factors[:, 0] ^ factors[:, 1]
X = np.c_[2.0 * factors - 1 + 0.3 * rng.normal(size=(1600, 2)), rng.normal(size=(1600, 10))]
A, B, b = X[:800], X[800:], y[800:]
noisy = np.where(rng.random(800) < 0.2, 1 - y[:800], y[:800])

models = {
    "default": {},
    "one learner": {"max_learners": 1},
    "no dropout": {"net_params": {"module__dropout": 0.0}},
}
models = {name: DynamicSubspaceMetricLearner(8, random_state=0, **p).fit(A, noisy) for name, p in models.items()}


def accuracy(A, B):
    """Accuracy of the neighbours' majority on true labels."""
    return KNeighborsClassifier(15).fit(A, noisy).score(B, b)


linear = NeighborhoodComponentsAnalysis(8, max_iter=50, random_state=0).fit(A, noisy)
scores = {"columns": accuracy(A, B), "NCA": accuracy(linear.transform(A), linear.transform(B))}
scores |= {name: accuracy(model.transform(A), model.transform(B)) for name, model in models.items()}

# %%
# The gate: 30 measurements, and 20 columns of noise.

X, y = load_breast_cancer(return_X_y=True)
X = np.c_[StandardScaler().fit_transform(X), rng.normal(size=(len(X), 20))]
gate = DynamicSubspaceMetricLearner(16, random_state=0).fit(X, y).attention_map(X)

# %%

figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
grown = models["default"]
axes[0].plot(np.arange(1, grown.n_iter_ + 1), grown.loss_curve_, color="#0f766e")
for epoch in grown.growth_epochs_:
    axes[0].axvline(epoch, color="#c08a3e", linestyle=":")
axes[0].axvline(49, color="grey", linestyle="--")
axes[0].set(title=f"loss, {grown.n_learners_} learners in the end", xlabel="epoch")
axes[1].bar(list(scores), list(scores.values()), color=["grey"] * 2 + ["#0f766e"] * 3)
axes[1].set(title="15 neighbours, true labels", ylim=(0.5, 1))
axes[1].tick_params(axis="x", labelsize=8)
axes[2].bar(np.arange(50), gate.mean(0), color=["#0f766e"] * 30 + ["#c08a3e"] * 20)
axes[2].axhline(1, color="grey", linewidth=0.8)
axes[2].set(title="mean factor of the gate", xlabel="column: 30 measured, 20 of noise")
plt.show()

# %%
# What to see: dotted lines are epochs after which there was one learner more, and from the dashed line on all learners
# see all rows. All metrics find the two columns among the twelve, the linear one, too; several learners are a little
# ahead. Without dropout the network fits wrong labels, too. The gate lowers columns of noise; it starts at one.
