"""Threads in which torch starts none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from unseen.ground.threads import plain_threads, side_by_side


@pytest.fixture
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("count", [1, 4])
def test_one_thread_inside_and_as_many_as_before_outside(count):
    with plain_threads(count, "mine") as pool:
        inside = list(pool.map(lambda _: torch.get_num_threads(), range(20)))
        assert inside == [1] * 20
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("count", [1, 2])
def test_tasks_side_by_side_give_their_results_in_order(count):
    assert list(side_by_side(lambda task: (task, torch.get_num_threads()), range(5), count)) == [
        (task, 1 if count > 1 else 3) for task in range(5)
    ]

    def fail(task):
        raise ValueError(task)

    with pytest.raises(ValueError, match="0"):
        list(side_by_side(fail, range(5), count))
    assert torch.get_num_threads() == 3
