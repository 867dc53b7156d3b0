"""A slice of ``make soak``: a few nodes in two processes, one of them away in each round, and a partition."""

from pathlib import Path

import pytest
from many_nodes import Found, ManyNodes, Terms


@pytest.mark.processes
def test_rounds_end_and_the_study_settles_while_nodes_leave_and_a_partition_heals(tmp_path: Path) -> None:
    terms = Terms(nodes=4, processes=2, rounds=2, deadline_s=4, partition_in=2)
    with ManyNodes(tmp_path, terms) as soak:
        found = soak.run()
        state = soak.state()
    assert found.wrong == []
    assert (len(state.closed), state.settled) == (2, True)
    assert len(found.memory) == 2


def test_the_slope_is_that_of_the_second_half_and_nothing_grows_where_nothing_does() -> None:
    assert Found(memory=[9, 1, 5, 7, 9, 11]).slope == 2
    assert Found(memory=[1, 2, 3, 7, 7, 7]).slope == 0
