"""
Choosing epsilon on public data: a private classifier of breast cancer
======================================================================

How small may epsilon be for a private classifier to be useful? Public rows that are similar to the private ones give an
answer: here the breast cancer table, with ranges from textbooks. The private rows are then fitted once.
"""

# %%
# Thirty measurements of 569 samples, scaled to 0 to 1 by publicly known ranges.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.neighbors import KNeighborsClassifier

from sklowrank.inspection import PrivacyUtilityDisplay
from sklowrank.privacy import PrivateSimilarityClassifier

ranges = [30, 40, 200, 2600, 0.2, 0.4, 0.5, 0.25, 0.4, 0.1, 3, 5, 25, 600, 0.04, 0.15, 0.4, 0.06, 0.08, 0.03]
ranges += [40, 50, 260, 4300, 0.25, 1.1, 1.3, 0.3, 0.7, 0.21]
X, y = load_breast_cancer(return_X_y=True)
X = np.clip(X / ranges, 0, 1)

# %%
# Each epsilon on ten splits, with independent noise. Five nearest neighbours, without privacy, are the reference.

private = PrivateSimilarityClassifier(bounds=(0, 1), bandwidth=0.45, classes=[0, 1])
display = PrivacyUtilityDisplay.from_estimator(
    private, X, y, epsilons=[0.03, 0.1, 0.3, 1, 3, 10], reference=KNeighborsClassifier(5), n_repeats=10
)
for epsilon, scores in zip(display.epsilons, display.scores):
    print(f"epsilon {epsilon:5}: accuracy {scores.mean():.3f}, from {scores.min():.3f} to {scores.max():.3f}")
print(f"without privacy: {display.reference.mean():.3f}")
plt.show()

# %%
# What to see: accuracy increases with epsilon until the noise no longer matters, and stays below the dashed line: the
# difference is the cost of answering from sums. Where the band is wide, single releases vary.
