"""Random numbers of a batch."""

from __future__ import annotations

import pytest
import torch

from unseen.methods.share import random_rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_numbers_are_uniform_and_independent(dtype):
    torch.manual_seed(0)
    found = random_rows(torch.empty(499, 7, 31, dtype=dtype))  # 108,283: no multiple of the four that a draw gives
    assert (found.shape, found.dtype) == ((499, 7, 31), torch.promote_types(dtype, torch.float32))
    values = found.double().flatten()
    steps = values * 2**16 - 0.5  # centres of 2^16 equal parts
    assert torch.equal(steps, steps.round())
    assert (steps.min(), steps.max()) >= (0, 0)
    assert steps.max() <= 2**16 - 1
    n = len(values)
    below = values.sort().values  # Kolmogorov-Smirnov: at most 1.63 / sqrt(n) with a probability of 99%
    distance = (below - (torch.arange(n) + 0.5) / n).abs().max().item()
    assert distance < 1.63 / n**0.5
    for lag in (1, 2, 3, 4, 5):  # four neighbours come from the same draw
        a, b = values[:-lag] - 0.5, values[lag:] - 0.5
        assert abs((a * b).mean().item() * 12) < 4 / n**0.5
    assert not torch.equal(found, random_rows(found))
