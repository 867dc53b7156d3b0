"""Nodes that are online now and then, and never at the same time, take part in a whole study."""

import itertools
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from study_in_memory import InMemoryStudy

from clients.node import Node
from clients.privacy.noise import NoNoise
from federation.rules.explain import explain
from federation.rules.fixedpoint import Integers

VISIT_S = 0.3
ROUNDS = {"count": 2, "deadline_s": 60, "attendance": "visits"}


class Late(NoNoise):
    """It is asked, and answers when it may."""

    def __init__(self, asked: threading.Event, go_on: threading.Event) -> None:
        self.asked, self.go_on = asked, go_on

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        self.asked.set()
        assert self.go_on.wait(20)
        return super().discrete_gaussian(count, std)


@pytest.mark.long
def test_nodes_that_never_meet_train_reveal_witness_and_are_paid(tmp_path: Path) -> None:
    together: list[int] = []
    with InMemoryStudy(tmp_path, sites=2, rounds=ROUNDS) as study:
        for site in study.institutions.values():
            site.stop()

        def visit_in_turn() -> None:
            """As two sensors would whose owners switch them on for a moment each."""
            for site in itertools.cycle(study.institutions.values()):
                if study.stop.is_set() or (study.state.settled and study.service.status()["awaited"] == []):
                    return
                with study.network.exchange(site.key) as site.exchange:
                    Node(site.parts()).run(study.stop, visit_s=VISIT_S)
                    together.append(len(study.exchange.connected()))

        visitors = threading.Thread(target=visit_in_turn)
        visitors.start()
        state = study.run()
        study.stop.set()
        visitors.join()
        assert max(together) == 1
        assert state.settled
        assert [len(done.admitted) for done in state.closed] == [2, 2]
        for site in study.institutions.values():
            assert [str(charge.state) for charge in site.budget.charges()] == ["committed", "committed"]
        assert "need not stay online" in explain(study.plan)


def test_a_visit_ends_after_the_training_that_is_under_way(tmp_path: Path) -> None:
    """The round's noise is drawn while the time is up already: the answer is stored, and sent at the next visit."""
    with InMemoryStudy(tmp_path, sites=2, rounds=ROUNDS) as study:
        ash, birch = study["ash"], study["birch"]
        ash.stop()
        started, go_on = threading.Event(), threading.Event()

        ash.noise = Late(started, go_on)
        visit = threading.Thread(target=lambda: Node(ash.parts()).run(threading.Event(), visit_s=VISIT_S))
        ash.exchange = study.network.exchange(ash.key)
        visit.start()
        runner = threading.Thread(target=study.run)
        runner.start()
        assert started.wait(90)
        visit.join(2 * VISIT_S)
        assert visit.is_alive(), "it trains beyond its time"
        study.network.unlink(ash.key.public, study.key.public)  # the line goes first
        go_on.set()
        visit.join(90)
        assert not visit.is_alive()
        assert ash.stored()[1].commitment
        ash.start()
        runner.join(30)
        assert study.state.settled
        assert [len(done.admitted) for done in study.state.closed] == [2, 2]
        assert birch.stored().keys() == ash.stored().keys() == {1, 2}
