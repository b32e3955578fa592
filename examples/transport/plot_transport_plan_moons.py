"""
A transport plan, by the strength of its entropy
================================================

:class:`~sklowrank.transport.SinkhornTransport` moves each row to a weighted mean of rows of the target. The weights are
a plan, and :class:`~sklowrank.inspection.TransportPlanDisplay` shows it, as segments between two clouds in the plane or
as an image.
"""

# %%
# Two moons, and two others which are turned by 40 degrees and moved. No point of one cloud is one of the other.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from sklowrank.inspection import TransportPlanDisplay
from sklowrank.transport import SinkhornTransport

X, y = make_moons(200, noise=0.08, random_state=0)
Z, z = make_moons(200, noise=0.08, random_state=1)
w = np.deg2rad(40)
Z = Z @ np.array([[np.cos(w), np.sin(w)], [-np.sin(w), np.cos(w)]]) + np.array([2.5, 1.0])

# %%
# Three strengths of the entropy, in medians of the cost. Above, the pairs with most mass; below, the plan with rows and
# columns sorted by class. The classes are known for the picture alone: transport was not given them.

figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained", height_ratios=[1, 1.2])
for (above, below), reg in zip(axes.T, (0.5, 0.05, 0.005)):
    transport = SinkhornTransport(reg).fit(X, X_target=Z)
    TransportPlanDisplay.from_estimator(transport, kind="segments", n_segments=300, ax=above)
    moved = transport.transform(X)
    above.scatter(*moved.T, s=6, color="black", label="moved", zorder=3)
    above.set(xticks=[], yticks=[], title=f"reg={reg}")
    display = TransportPlanDisplay.from_estimator(transport, labels=y, target_labels=z, ax=below)
    below.set_title(f"{display.within:.0%} of the mass within classes", fontsize="medium")
    print(f"reg={reg}: {transport.n_iter_} iterations")
axes[0, 0].legend(loc="lower right", fontsize="small")
for ax in axes[0, 1:]:
    ax.get_legend().remove()
plt.show()

# %%
# What to see: with a strong entropy all points are moved near the mean of the target, and almost half of the mass goes
# to the other moon. With the default of 0.05 the moved points, in black, have the shape of the target, somewhat
# smaller. With a small entropy each point has few partners: more of the mass stays within a moon, the mass outside of
# the two blocks comes from ends of moons that reach into the other one, and the moved points are noisier.
