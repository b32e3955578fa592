"""
When to stop a network, without labels to validate it
=====================================================

A network is trained on few labelled digits, and many more have none. Does it still improve on these?
:class:`~sklowrank.topology.SeparabilityMonitor` scores after each epoch how well its hidden states of the unlabelled
rows fall into groups, and says when the score stops rising. First in a loop over ``partial_fit`` of
:class:`~sklowrank.neural.NetworkClassifier`, then in a callback of skorch.
"""

# %%
# 300 labelled rows, 800 without labels; the labels of these are only used for the picture.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback

from sklowrank.neural import NetworkClassifier
from sklowrank.topology import PersistenceSeparability, SeparabilityMonitor

X, y = load_digits(return_X_y=True)
X = (X / 16 - 0.3).astype(np.float32)
order = np.random.default_rng(0).permutation(len(X))
labelled, unlabelled = order[:300], order[300:1100]


def hidden_states(module, rows):
    """Values of the last hidden layer."""
    with torch.no_grad():
        return module[:-1](torch.from_numpy(rows)).numpy()


# %%
# ``update`` returns whether to stop. Here training continues, to measure what is lost by stopping.

network = NetworkClassifier((64,), standardize=False, learning_rate=3e-3, batch_size=32, random_state=0)
monitor = SeparabilityMonitor(PersistenceSeparability(random_state=0), patience=5, tol=0.01)
accuracy, stop = [], None
for epoch in range(1, 31):
    network.partial_fit(X[labelled], y[labelled], classes=np.arange(10))
    accuracy.append(network.score(X[unlabelled], y[unlabelled]))
    if monitor.update(hidden_states(network.network(), X[unlabelled])) and stop is None:
        stop = epoch
        print(f"stop after epoch {epoch}: accuracy {accuracy[-1]:.3f}")
print(f"after all 30 epochs: accuracy {accuracy[-1]:.3f}")

# %%
# The same as a callback of skorch, which ends the training by ``KeyboardInterrupt``, as skorch's own callbacks do.


class StopByShape(Callback):
    """Stops the training where hidden states of rows without labels separate no better."""

    def __init__(self, rows):
        self.rows = rows

    def on_train_begin(self, net, **kwargs):
        self.monitor = SeparabilityMonitor(PersistenceSeparability(random_state=0))

    def on_epoch_end(self, net, **kwargs):
        if self.monitor.update(hidden_states(net.module_, self.rows)):
            raise KeyboardInterrupt


torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
net = NeuralNetClassifier(
    module,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    batch_size=32,
    max_epochs=30,
    train_split=None,
    iterator_train__shuffle=True,
    callbacks=[("shape", StopByShape(X[unlabelled]))],
    verbose=0,
)
net.fit(X[labelled], y[labelled])
print(f"skorch stops after {len(net.history)} epochs: accuracy {net.score(X[unlabelled], y[unlabelled]):.3f}")

# %%

figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5), layout="constrained", sharex=True)
epochs = np.arange(1, 31)
upper.plot(epochs, monitor.history_, color="#0f766e")
upper.set(ylabel="separability, no labels")
lower.plot(epochs, accuracy, color="#c08a3e")
lower.set(ylabel="accuracy on the unlabelled rows", xlabel="epoch")
for ax in (upper, lower):
    ax.axvline(stop, color="grey", linestyle=":")
upper.annotate("stop", (stop, min(monitor.history_)), (4, 0), textcoords="offset points")
plt.show()

# %%
# What to see: the score rises during the first eight epochs and not afterwards. The accuracy, which is not used by the
# monitor, rises steeply in the same epochs, and by three hundredths more in the 18 epochs after the stop. The score
# says when the groups have formed, not when the last hundredth of accuracy is reached: with labels to spare, watch the
# accuracy itself.
