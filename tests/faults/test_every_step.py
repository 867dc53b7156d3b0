"""A slice of ``make soak``: one kill at one durable step of real processes; and the check catches what it is for."""

from pathlib import Path

import pytest
from every_step import EveryStep, Step, chosen
from node_kills import ended, forked
from sqlalchemy import delete

from clients.folder import open_node_folder
from clients.storage import StoredUpdate
from federation.storage.database import write

TRAINED = Step("clients/privacy/budget:_move < clients/contribution:_train", "after", 1)


@pytest.mark.long
@pytest.mark.processes
def test_a_node_killed_between_its_charge_and_its_answer_is_back_without_anybody(tmp_path: Path) -> None:
    study = EveryStep(tmp_path)
    told = study.kill("ash", TRAINED)
    assert told.reached
    assert told.wrong == []

    def spoil(folder: Path, _: int) -> None:
        with write(open_node_folder(folder / "birch").engine) as session:
            session.execute(delete(StoredUpdate))

    assert ended(*forked(spoil, study.live)) == ("", 0)
    assert study.examine() == [f"birch: round {number} is stored otherwise than it was admitted" for number in (1, 2)]


def test_the_occurrences_of_a_step_are_spread_over_the_run() -> None:
    steps = [("a", "before"), ("b", "before"), ("a", "before"), ("a", "before")]
    assert chosen(steps, 2) == [Step("a", "before", 1), Step("a", "before", 3), Step("b", "before", 1)]
