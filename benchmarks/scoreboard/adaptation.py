"""Fitted networks adapted to few rows of another kind."""

import numpy as np

from benchmarks.scoreboard.compression import WRONG, frozen
from benchmarks.scoreboard.entries import Clock, Contender, Entry


def adapted(build, epochs, change, n_rows):
    """A protocol: a network of digits, and a few of those that were changed."""

    def protocol(make, seed):
        from benchmarks.adaptation import nets

        A, B, a, b = nets.sources(seed)
        net = nets.trained(getattr(nets, build), A, a, seed, epochs)
        S, T, s, t = nets.few(getattr(nets, change)(B), b, n_rows, seed)
        with Clock() as clock:
            predict = make(seed)(net, S, s)
        return 1 - np.mean(predict(T) == t), clock.seconds

    return protocol


def adapter(name, **params):
    def make(seed):
        from sklowrank import adapt

        return lambda net, S, s: getattr(adapt, name)(frozen(net), random_state=seed, **params).fit(S, s).predict

    return make


def in_torch(kind, layers=(), **params):
    """Training of some of the weights, or of changes of low rank, in torch."""

    def make(seed):
        def fit(net, S, s):
            import torch

            from benchmarks.adaptation import nets

            module = nets.baseline(net, kind, S, s, seed, layers=layers, **params)[0].eval()

            def predict(T):
                with torch.inference_mode():
                    return module(torch.from_numpy(T)).argmax(1).numpy()

            return predict

        return fit

    return make


FULL = Contender("fine-tuning of all weights in torch", in_torch("full", rate=2e-3))

ENTRIES = [
    Entry(
        "TuckerAdapter",
        "convolutions on digits; 200 images turned and inverted",
        WRONG,
        adapted("Images", 30, "turned", 200),
        Contender("default", adapter("TuckerAdapter", layers=("conv2d",), exclude="conv1")),
        FULL,
        Contender("LoRA of rank 4 and the head in torch", in_torch("LoRA and head", ("conv2", "conv3"), rank=4)),
        3,
    ),
    Entry(
        "LDUAdapter",
        "a network 64-128-128-10 on digits; 100 images moved by one pixel",
        WRONG,
        adapted("wide", 40, "shifted", 100),
        Contender("default", adapter("LDUAdapter")),
        FULL,
        Contender("LoRA of rank 1 and the head in torch", in_torch("LoRA and head", ("wide1", "wide2", "output"))),
        3,
    ),
]
