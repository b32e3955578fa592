"""A network with attention, for what compresses attention."""

import torch
from torch import nn


class Attentive(nn.Module):
    """Each column is a token, in a place of its own."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.read, self.output = nn.Linear(1, 16), nn.Linear(16, n_outputs)
        self.place = nn.Parameter(torch.randn(n_features, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        """Return logits of classes."""
        x = torch.relu(self.read(x[:, :, None]) + self.place)
        return self.output((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))
