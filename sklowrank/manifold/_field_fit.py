"""A field fitted on a cloud of points, with tangent spaces as wide as the marginal likelihood prefers."""

from typing import NamedTuple

from ._connection import Cloud, connection_modes
from ._field_process import Process, fit_process, observe

_WIDTHS = (1.5, 3.0, 6.0)  # multiples of n_neighbors that "auto" tries
_CLEAN = 0.07  # share of the local variance outside of the tangent spaces; up to it the first width is taken
_GAIN = 1e-3  # by which the logarithm of a likelihood must be larger; less is a matter of rounding


class Fit(NamedTuple):
    """A cloud, the process on it, and the number of neighbours of tangent spaces as a multiple of n_neighbors."""

    cloud: Cloud
    process: Process
    tangent_neighbors: float


def fit_field(points, labels, graph, options, draws):
    """Return the fit for the given width of tangent spaces, or for the one of the largest marginal likelihood.

    `labels` are y and the location of each row. A wide tangent space averages the noise of the points over more of
    them, and follows a curved surface less closely. Wider ones are tried only where the narrowest leaves some of the
    points unexplained: where points lie on the surface, they would lose, at three times the cost. Where the dimension
    rises with the width, that is the curvature of the surface and not noise, and the width is passed over.
    """
    given = graph.tangent_neighbors
    width = given if given != "auto" else _WIDTHS[0]
    best = _fitted(_cloud(width, points, graph), width, points, labels, graph, options, draws)
    if given != "auto" or not graph.tangent or best.cloud.unexplained <= _CLEAN:
        return best
    n_seen = best.cloud.rule.wide
    for width in _WIDTHS[1:]:
        if n_seen == len(points) - 1:  # all points are neighbours
            break
        cloud = _cloud(width, points, graph)
        n_seen = cloud.rule.wide
        if _dimension(cloud) <= _dimension(best.cloud):
            wider = _fitted(cloud, width, points, labels, graph, options, draws)
            best = wider if _likelihood(wider) > _likelihood(best) + _GAIN else best
    return best


def _cloud(width, points, graph):
    """Return the cloud with tangent spaces of a width."""
    return connection_modes(points, graph._replace(tangent_neighbors=width))


def _fitted(cloud, width, points, labels, graph, options, draws):
    """Return the process fitted on a cloud."""
    observed = observe(*labels, cloud, graph.tangent, in_frames=options.ambient is None)
    return Fit(cloud, fit_process(observed, points, cloud.eigenvalues, options, draws), float(width))


def _dimension(cloud):
    return cloud.frames.shape[2]


def _likelihood(fit):
    """Return the logarithm of the likelihood of whole vectors: their parts in tangent spaces depend on these."""
    return fit.process.log_likelihood_of_all
