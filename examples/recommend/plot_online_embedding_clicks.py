"""
Clicks in a stream
==================

:class:`~sklowrank.recommend.OnlineEmbeddingClassifier` learns from a stream whose columns are identifiers: each user
and each item gets a vector when it first occurs, and rows of identifiers that no longer occur are dropped.
"""

# %%
# A generated stream of 40,000 impressions: 4,000 users and 1,000 items, some far more frequent than others. Whether a
# user clicks depends on the user, on the item and on how the two match, and the appeal of items changes over time.
# Identifiers are text. One row in five is of a visitor who occurs once.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from sklowrank.recommend import OnlineEmbeddingClassifier

rng = np.random.default_rng(0)
n, n_users, n_items = 40_000, 4_000, 1_000
frequency = [np.arange(1, m + 1) ** -1.05 for m in (n_users, n_items)]
user, item = (rng.choice(len(p), n, p=p / p.sum()) for p in frequency)
of_user, of_item = 0.7 * rng.normal(size=n_users), rng.normal(size=n_items)
taste, kind = rng.normal(size=(n_users, 4)), rng.normal(size=(n_items, 4))
click = np.empty(n, dtype=int)
for rows in np.array_split(np.arange(n), 40):
    z = of_user[user[rows]] + of_item[item[rows]] + 0.8 * (taste[user[rows]] * kind[item[rows]]).sum(1)
    click[rows] = rng.random(len(rows)) < 1 / (1 + np.exp(-z))
    of_item = 0.9 * of_item + 0.44 * rng.normal(size=n_items)
stream = pd.DataFrame({"user": user, "item": item}).astype(str)
stream["user"] = "user-" + stream["user"]
stream["item"] = "item-" + stream["item"]
visitors = rng.random(n) < 0.2
stream.loc[visitors, "user"] = [f"visitor-{i}" for i in range(visitors.sum())]
stream.head()

# %%
# Predict each batch of 64 rows before it is learned. With ``min_count=2`` an identifier gets a row at its second
# occurrence; ``expire_after`` drops rows that no update has touched for so many rows of the stream.

settings = {
    "all identifiers": {},
    "min_count=2": {"min_count": 2},
    "min_count=2, expire_after=10,000": {"min_count": 2, "expire_after": 10_000, "evict_every": 500},
}
scores, n_rows = {}, {}
for name, parameters in settings.items():
    model = OnlineEmbeddingClassifier(random_state=0, **parameters)
    scores[name], n_rows[name] = np.zeros(n), []
    for start in range(0, n, 64):
        X, y = stream[start : start + 64], click[start : start + 64]
        if start:
            scores[name][start : start + 64] = model.decision_function(X)
        model.partial_fit(X, y, classes=[0, 1])
        n_rows[name].append(model.n_ids_)

# %%
# What is common without such a table: each text is hashed to a column of a sparse matrix, for a linear model.

hasher = FeatureHasher(2**18, input_type="string")
linear = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.2, alpha=1e-6)
scores["FeatureHasher, SGDClassifier"] = np.zeros(n)
for start in range(0, n, 64):
    X = hasher.transform(stream[start : start + 64].to_numpy().tolist())
    if start:
        scores["FeatureHasher, SGDClassifier"][start : start + 64] = linear.decision_function(X)
    linear.partial_fit(X, click[start : start + 64], classes=[0, 1])
for name, score in scores.items():
    print(
        f"{name}: area under the ROC curve {roc_auc_score(click[n // 5 :], score[n // 5 :]):.3f} after the first fifth"
    )

# %%
# The area under the ROC curve in parts of 4,000 rows, and the number of rows of the table.

colors = dict(zip(scores, ["#0f766e", "#2563a8", "#b45309", "0.5"]))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
parts = np.array_split(np.arange(n), 10)
for name, score in scores.items():
    left.plot(
        [p[-1] for p in parts], [roc_auc_score(click[p], score[p]) for p in parts], color=colors[name], label=name
    )
left.set(xlabel="row of the stream", ylabel="area under the ROC curve")
left.legend(frameon=False, fontsize=8)
for name, rows in n_rows.items():
    right.plot(64 * np.arange(1, len(rows) + 1), rows, color=colors[name], label=name)
right.set(xlabel="row of the stream", ylabel="rows of the table")
right.legend(frameon=False, fontsize=8)
plt.show()

# %%
# What to see: on the left, vectors are above hashed columns, because users and items interact, which a linear model
# leaves out. Filters cost little of this: an identifier that occurs once says little about others. On the right,
# without a filter the table has a row for every visitor; with ``min_count`` it grows with those who return, and with
# ``expire_after`` it stops growing.
