"""
The price of privacy, before it is paid
=======================================

How small may epsilon be, so that a private classifier is still of use? Rows that are public and like the private ones
answer it: here a table of breast tissue, whose ranges any textbook has. The private rows are then fitted once.
"""

# %%
# Thirty measurements of 569 samples, brought to 0 to 1 by ranges that are known without looking.

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
# Each budget is tried on ten splits, with noise of its own. Five neighbours, which keep the rows, are the reference.

private = PrivateSimilarityClassifier(bounds=(0, 1), bandwidth=0.45, classes=[0, 1])
display = PrivacyUtilityDisplay.from_estimator(
    private, X, y, epsilons=[0.03, 0.1, 0.3, 1, 3, 10], reference=KNeighborsClassifier(5), n_repeats=10
)
for epsilon, scores in zip(display.epsilons, display.scores):
    print(f"epsilon {epsilon:5}: accuracy {scores.mean():.3f}, from {scores.min():.3f} to {scores.max():.3f}")
print(f"without privacy: {display.reference.mean():.3f}")
plt.show()

# %%
# What to see: the curve rises until the noise no longer matters, and stays below the dashed line: what is left is
# the price of answering from sums. Where the band is wide, one release may be lucky and the next one not.
