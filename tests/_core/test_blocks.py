"""Blocks cover all rows once, and shrink where memory runs out."""

import numpy as np
import pytest
import torch

from sklowrank._core.blocks import in_blocks, join_blocks, rows_per_block
from sklowrank._core.rows import Rows


def test_blocks_cover_the_rows_in_order():
    parts = list(in_blocks(lambda rows: list(range(10))[rows], 10, 4, bytes_per_row=8))
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_no_rows_no_blocks():
    assert list(in_blocks(lambda rows: rows, 0, 4, bytes_per_row=8)) == []


@pytest.mark.parametrize("n", [10, 0])
def test_results_of_blocks_are_joined(n):
    X = torch.arange(20.0, dtype=torch.float64, device="cpu").reshape(10, 2)[:n]
    assert torch.equal(join_blocks(lambda rows: 2 * X[rows], n, 4, bytes_per_row=8), 2 * X)
    values, indices = join_blocks(lambda rows: X[rows].max(1), n, 3, bytes_per_row=8)
    assert torch.equal(values, X[:, 1])
    assert indices.tolist() == [1] * n


@pytest.mark.parametrize("shape", [(1, 2), (9, 2), ()])
def test_results_with_other_than_a_row_for_each_are_refused(shape):
    with pytest.raises(ValueError, match="one row for each"):
        join_blocks(lambda rows: torch.ones(shape, device="cpu"), 10, 4, bytes_per_row=8)


TOO_MUCH = 10**15  # numbers: more than any machine holds, but no overflow of sizes, so that allocators themselves fail


def too_much_from_torch():
    torch.empty(TOO_MUCH, dtype=torch.float64, device="cpu")


def too_much_from_numpy():
    np.empty(TOO_MUCH)


def too_much_from_cuda():
    torch.empty(TOO_MUCH, dtype=torch.float64, device="cuda")


def windows():
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: not enough memory: you tried to ...")


def driver():
    raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")


def cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    "allocate",
    [
        too_much_from_torch,
        too_much_from_numpy,
        pytest.param(too_much_from_cuda, marks=pytest.mark.cuda),
        windows,
        driver,
        cublas,
    ],
    ids=lambda f: f.__name__,
)
def test_a_block_that_does_not_fit_is_halved_and_tried_again(allocate):
    sizes = []

    def compute(rows):
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 3:
            allocate()
        return list(range(10))[rows]

    parts = list(in_blocks(compute, 10, 8, bytes_per_row=8))
    assert [row for part in parts for row in part] == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_sums_over_rows_survive_a_failed_allocation():
    """Through the rows that estimators read: the sum is that of one block."""
    X = torch.arange(40, dtype=torch.float64, device="cpu").reshape(20, 2)

    def collect(block):
        if len(block) > 4:
            too_much_from_torch()
        return (block.sum(0),)

    (total,) = Rows(X).gather(collect, size=16)
    assert torch.equal(total, X.sum(0))


def test_not_even_one_row_names_the_bytes_and_the_parameter():
    def compute(rows):
        too_much_from_torch()

    with pytest.raises(MemoryError, match=r"about 4096 bytes.*batch_size"):
        list(in_blocks(compute, 10, 4, bytes_per_row=4096))


def test_other_errors_pass_through():
    def compute(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_blocks(compute, 10, 4, bytes_per_row=8))


def test_auto_fills_a_block_and_never_exceeds_the_rows():
    assert rows_per_block("auto", 10, 8) == 10
    assert rows_per_block("auto", 10**9, 2**20) == 32
    assert rows_per_block("auto", 10, 2**40) == 1
    assert rows_per_block(4, 10, 2**40) == 4
    assert rows_per_block(400, 10, 8) == 10
