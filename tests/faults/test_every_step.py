"""What ``make soak`` kills at every durable step: which occurrences of a step are chosen."""

from every_step import Step, chosen


def test_the_occurrences_of_a_step_are_spread_over_the_run() -> None:
    steps = [("a", "before"), ("b", "before"), ("a", "before"), ("a", "before")]
    assert chosen(steps, 2) == [Step("a", "before", 1), Step("a", "before", 3), Step("b", "before", 1)]
