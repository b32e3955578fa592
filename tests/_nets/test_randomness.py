"""Random numbers of a network: torch's global generators are lent to one thread at a time, and given back."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from sklowrank._nets.randomness import Randomness

CPU = torch.device("cpu")


def randomness_of(seed=0):
    """Random numbers of a fit that runs code of the user."""
    return Randomness(torch.Generator("cpu").manual_seed(seed), CPU, seeds_global=True)


def test_lent_generators_go_on_where_they_were():
    randomness = randomness_of()
    with randomness.scope():
        first = torch.rand(3)
    torch.rand(5)
    with randomness.scope():
        second = torch.rand(3)
    with randomness_of().scope():
        both = torch.rand(3), torch.rand(3)
    assert torch.equal(first, both[0])
    assert torch.equal(second, both[1])


def test_lent_generators_make_the_cpu_the_default_device():
    with torch.device("meta"), randomness_of().scope():
        assert torch.zeros(1).device == CPU


def test_one_thread_draws_at_a_time():
    def drawn(seed):
        randomness, draws = randomness_of(seed), []
        for _ in range(30):
            with randomness.scope():
                draws.append(torch.rand(50))
                time.sleep(0)
                draws.append(torch.rand(50))
        return torch.cat(draws)

    alone, state = [drawn(seed) for seed in range(4)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(drawn, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside))
    assert torch.equal(state, torch.get_rng_state())
