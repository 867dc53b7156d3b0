"""How ``make soak`` tells growth of memory from caches that fill."""

from many_nodes import Found


def test_the_slope_is_that_of_the_second_half_and_nothing_grows_where_nothing_does() -> None:
    assert Found(memory=[9, 1, 5, 7, 9, 11]).slope == 2
    assert Found(memory=[1, 2, 3, 7, 7, 7]).slope == 0
