"""
Levels of pixels as identifiers
===============================

Any column of a few distinct values can be a column of identifiers.
:class:`~sklowrank.recommend.OnlineEmbeddingClassifier` takes integer columns as such: a level of a pixel has weights of
its own, instead of one slope for all levels.
"""

# %%
# The handwritten digits that scikit-learn bundles: 8 x 8 pixels of 17 levels, here seen one batch of 16 after the other,
# each predicted before it is learned. Integers are identifiers, 64 columns of them; floats are numbers.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from sklowrank.recommend import OnlineEmbeddingClassifier

images, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(y))
images, y = images[order], y[order]
models = {
    "levels as identifiers": (OnlineEmbeddingClassifier(0, learning_rate=0.1, random_state=0), images.astype(int)),
    "pixels as numbers": (OnlineEmbeddingClassifier(0, learning_rate=0.1, random_state=0), images),
    "SGDClassifier": (SGDClassifier(loss="log_loss", random_state=0), images / 16),
}
right = {}
for name, (model, X) in models.items():
    found = np.full(len(y), -1)
    for start in range(0, len(y), 16):
        rows = slice(start, start + 16)
        if start:
            found[rows] = model.predict(X[rows])
        model.partial_fit(X[rows], y[rows], classes=np.arange(10))
    right[name] = found == y
    print(f"{name}: accuracy {right[name][len(y) // 5 :].mean():.3f} after the first fifth")
