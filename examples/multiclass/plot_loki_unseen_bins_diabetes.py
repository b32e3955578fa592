"""
Grades without training rows
============================

A disease is graded in twenty steps, but rows with a grade were collected for eight of them. A classifier can name these
eight only. :class:`~sklowrank.multiclass.LokiClassifier` takes its probabilities and predicts the grade with the least
expected squared distance, which can be one in between.
"""

# %%
# The progression of diabetes, cut into twenty bins of equal width. Training rows of twelve bins are left out; the test
# rows have all.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.multiclass import LokiClassifier

X, y = load_diabetes(return_X_y=True)
grade = np.clip(np.digitize(y, np.linspace(y.min(), y.max(), 21)) - 1, 0, 19)
X_train, X_test, y_train, y_test = train_test_split(X, grade, test_size=0.4, random_state=0)
seen = np.isin(y_train, [0, 3, 6, 9, 12, 15, 18, 19])
X_train, y_train = X_train[seen], y_train[seen]

classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
model = LokiClassifier(classifier, metric="numeric", label_space=np.arange(20)).fit(X_train, y_train)

# %%
# Predictions by arg-max are those of the wrapped classifier. A ridge regression, rounded, is a third way: it uses that
# grades are numbers, where LOKI needs distances alone.

ridge = make_pipeline(StandardScaler(), Ridge()).fit(X_train, y_train)
predictions = {
    "arg-max": model.estimator_.predict(X_test),
    "LOKI": model.predict(X_test),
    "Ridge, rounded": np.clip(np.rint(ridge.predict(X_test)), 0, 19).astype(int),
}
for name, found in predictions.items():
    print(f"{name}: squared distance {np.mean((found - y_test) ** 2):.1f}, accuracy {np.mean(found == y_test):.3f}")

# %%
# The rule trusts the probabilities. A temperature above 1 flattens them and draws predictions to the middle, one near 0
# gives arg-max.

temperatures = np.geomspace(0.05, 20, 17)
errors = [model.set_params(temperature=t).score_distance(X_test, y_test) for t in temperatures]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=[1.4, 1], layout="constrained")
edges = np.arange(21) - 0.5
left.hist(y_test, edges, color="0.85", label="true")
for name in ("arg-max", "LOKI"):
    left.hist(predictions[name], edges, histtype="step", linewidth=1.8, label=name)
left.plot(np.unique(y_train), np.zeros(len(np.unique(y_train))), "k^", clip_on=False, label="grades with training rows")
left.set(xlabel="grade", ylabel="rows", xticks=range(0, 20, 3))
left.legend(fontsize="small")
right.semilogx(temperatures, errors, marker="o", label="LOKI")
for name, color in (("arg-max", "C1"), ("Ridge, rounded", "C2")):
    right.axhline(np.mean((predictions[name] - y_test) ** 2), color=color, linestyle="--", label=name)
right.axvline(1, color="0.7", linewidth=1)
right.set(xlabel="temperature", ylabel="squared distance on new rows")
right.legend(fontsize="small")
plt.show()

# %%
# What to see: arg-max predicts grades with training rows alone. LOKI predicts grades between them, and its squared
# distance is two fifths smaller. The default temperature of 1 is near the best. The ridge regression is close: where
# labels are plain numbers a regressor does as well, and better on other splits.
