"""What a user writes, as type checkers read it; nothing here is run.

`tests/test_types.py` has it checked by mypy. A line with ``type: ignore`` is one that a checker has to refuse.
"""

from typing import assert_type

import numpy as np

from sklowrank.cluster import KSubspaces, ManifoldLinearizingClustering, ThresholdedSubspaceClustering
from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.dimension_reduction import FrechetSDR, KernelFrechetSDR, LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.mixture import LowRankGaussianMixture
from sklowrank.privacy import PrivacyAccountant, PrivateKernelDensity, PrivateSimilarityClassifier
from sklowrank.recommend import MatrixFactorizationRegressor

X = np.random.default_rng(0).normal(size=(100, 5))
y = X[:, 0] > 0

# Parameters: numbers, names, sequences, None, generators

MatrixCompletionImputer()
MatrixCompletionImputer(3)
MatrixCompletionImputer(n_components=3, inference="map", alpha=2, clip=(0.0, 1.0), random_state=0)
MatrixCompletionImputer(n_components="auto", clip="observed", batch_size=64, random_state=np.random.RandomState(0))
MatrixCompletionImputer(clip=(np.zeros(5), [1, 2, 3, 4, 5]), unstored="zero")
MatrixFactorizationRegressor(n_components=5, random_state=None)
KSubspaces(3, n_dims=[1, 2, 2], tol=1e-3)
KSubspaces(3, n_dims="auto", ensemble=20, verbose=True)
ThresholdedSubspaceClustering(3, n_neighbors=4, n_pca=0.9)
ThresholdedSubspaceClustering(3, n_neighbors="auto", n_pca=5)
ManifoldLinearizingClustering("auto", n_epochs=(5, "auto"), net_params={"module__dropout": 0.1})
LowRankGaussianMixture(4, n_dims=2, noise="component", init=np.zeros(100, dtype=int))
LowRankGaussianMixture(4, init=lambda X, n_components, random_state: np.zeros(len(X), dtype=int))
SupervisedDictionaryLearning(2, covariate_columns=["age", "site"], nonnegative="codes", class_weight="balanced")
SupervisedDictionaryRegressor(2, covariate_columns=slice(3, None), nonnegative=True)
FrechetSDR(2, metric="wasserstein", net_params={"module__dropout": 0.2})
KernelFrechetSDR(0.9, metric=lambda a, b: float(abs(a - b)), alpha="cv")
LinearFrechetSDR(2, method="fccov")
PrivateKernelDensity(epsilon=1, bandwidth=[0.1, 0.2], bounds=(0, 1), accountant=PrivacyAccountant(epsilon=2.0))
PrivateSimilarityClassifier(classes=range(3), bounds=([0, 0], [1, 1]))

# What is no parameter, or no value of one

MatrixCompletionImputer(n_components="many")  # type: ignore[arg-type]
MatrixCompletionImputer(rank=3)  # type: ignore[call-arg]
MatrixCompletionImputer(3, "map")  # type: ignore[call-arg]
KSubspaces(n_clusters=2.5)  # type: ignore[arg-type]
KSubspaces(device=None)  # type: ignore[arg-type]
LowRankGaussianMixture(noise="none")  # type: ignore[arg-type]
PrivateKernelDensity(accountant=2.0)  # type: ignore[arg-type]

# Fitted attributes, and fits in chains

imputer = MatrixCompletionImputer(2).fit(X)
assert_type(imputer, MatrixCompletionImputer)
assert_type(imputer.components_, np.ndarray)
assert_type(imputer.n_iter_, int)
assert_type(imputer.loss_curve_, list[float])
assert_type(MatrixCompletionImputer(2).fit(X).components_, np.ndarray)
assert_type(KSubspaces(2).partial_fit(X).fit(X).bases_, list[np.ndarray])
assert_type(LowRankGaussianMixture(2).fit(X, sample_weight=np.ones(100)).converged_, bool)
assert_type(SupervisedDictionaryLearning(2).fit(X, y).classes_, np.ndarray)
assert_type(ManifoldLinearizingClustering(2).fit(X).weights_, dict[str, np.ndarray])
assert_type(PrivateKernelDensity().fit(X).merge(PrivateKernelDensity().fit(X)).noise_std_, float)
assert_type(imputer.feature_names_in_, np.ndarray)
neighbours = ThresholdedSubspaceClustering(3).fit(X).affinity_matrix_.nnz
spread = imputer.transform_std(X), imputer.components_cov_
filled = imputer.transform(X)
columns = imputer.components_.shape[1] + len(imputer.loss_curve_)
