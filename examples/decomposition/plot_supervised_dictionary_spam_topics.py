"""
Topics of short messages that separate spam
===========================================

Topics of :class:`~sklearn.decomposition.NMF` explain which words occur together, and need not separate a rare class.
:class:`~sklowrank.decomposition.SupervisedDictionaryLearning` with ``nonnegative=True`` learns topics that do both,
with covariates: the length of a message, its share of digits and of capitals.
"""

# %%
# The messages are the SMS Spam Collection: the file sms_spam/SMSSpamCollection in the folder that the environment
# variable SKLOWRANK_DATA names.

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import NMF
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.inspection import DictionaryDisplay

file = Path(os.environ.get("SKLOWRANK_DATA", ".")) / "sms_spam" / "SMSSpamCollection"
if not file.exists():
    raise SystemExit("Set SKLOWRANK_DATA to a folder that holds sms_spam/SMSSpamCollection.")
lines = [line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines() if "\t" in line]
labels, texts = (np.array(column, dtype=object) for column in zip(*lines))
texts_train, texts_test, y_train, y_test = train_test_split(
    texts, labels, test_size=0.3, stratify=labels, random_state=0
)

# %%
# A sparse matrix of tf-idf, which stays sparse, and three covariates.

words = TfidfVectorizer(max_features=1000, stop_words="english", min_df=3)
X_train, X_test = words.fit_transform(texts_train), words.transform(texts_test)


def covariates(texts):
    """Length on a logarithmic scale, share of digits, share of capitals."""
    counts = [(len(t), sum(c.isdigit() for c in t), sum(c.isupper() for c in t)) for t in texts]
    length, digits, capitals = np.array(counts, dtype=float).T
    return np.column_stack([np.log1p(length), digits / length, capitals / length])


scaler = StandardScaler().fit(covariates(texts_train))
Z_train, Z_test = scaler.transform(covariates(texts_train)), scaler.transform(covariates(texts_test))

# %%
# Five topics, with and without covariates, and the same with topics of NMF.

topics = SupervisedDictionaryLearning(5, nonnegative=True, tol=1e-5, random_state=0).fit(X_train, y_train)
beside = SupervisedDictionaryLearning(5, nonnegative=True, C=10, tol=1e-5, random_state=0)
beside.fit(X_train, y_train, covariates=Z_train)
plain = NMF(5, init="nndsvda").fit(X_train)
on_topics = LogisticRegression().fit(plain.transform(X_train), y_train)
on_both = LogisticRegression().fit(np.hstack([plain.transform(X_train), Z_train]), y_train)
on_words = LogisticRegression(C=10).fit(X_train, y_train)

found = {
    "topics of NMF": on_topics.predict(plain.transform(X_test)),
    "topics of NMF and covariates": on_both.predict(np.hstack([plain.transform(X_test), Z_test])),
    "supervised topics": topics.predict(X_test),
    "supervised topics and covariates": beside.predict(X_test, covariates=Z_test),
    "all 1000 words": on_words.predict(X_test),
}
for name, prediction in found.items():
    print(f"{name:32s} F1 of spam {f1_score(y_test, prediction, pos_label='spam', zero_division=0):.3f}")

# %%
# The topics, and the contribution of each to the log-odds of spam.

display = DictionaryDisplay.from_estimator(topics, feature_names=words.get_feature_names_out(), n_top=10, n_columns=5)
display.figure_.set_size_inches(12, 3.6)
plt.show()

# %%
# What to see: three topics are small talk, much like those of NMF. One holds the words of spam together with everyday
# words, and one the same everyday words with the opposite sign: since entries of a topic are non-negative, the
# difference between spam and other messages takes two. Topics of NMF find no spam, because spam is rare and its words
# are many.
