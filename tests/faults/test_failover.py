"""A small study of real processes: the coordinator is killed in a round, for good, and the standby settles it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from parties_on_loopback import Parties, run_command

from clients.privacy.budget import State
from federation.cli.running import last_status
from federation.coordinator.folder import CoordinatorFolder
from federation.errors import SupersededError
from federation.rules.entries import Entry, open_signed_entry
from federation.rules.state import StudyState

pytestmark = [pytest.mark.processes, pytest.mark.timeout(420)]

DEADLINE_S = 90
"""Never reached: rounds end when everybody has answered."""
AFTER_S = 15
ROUNDS = 2


@dataclass
class Story:
    """What happened, as the folders show it afterwards."""

    parties: Parties
    standby: CoordinatorFolder
    size_at_kill: int
    size_at_end: int
    exits: dict[str, int]
    said_at_end: str

    @property
    def state(self) -> StudyState:
        return self.standby.history(None).state

    @property
    def entries(self) -> list[Entry]:
        signers = (self.parties.coordinator.key.public, self.standby.key.public)
        log = self.standby.history(None).log
        return [open_signed_entry(data, signers=signers)[0] for data in log.entries()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Parties(tmp_path_factory.mktemp("failover"), deadline_s=DEADLINE_S, rounds=ROUNDS, failover_s=AFTER_S) as all_:
        assert all_.standby is not None
        standby, everybody = all_.standby, ("coordinator", "standby", *Parties.SITES)
        all_.start(*everybody)
        all_.wait_for("the standby to follow", standby.studies, timeout_s=150, alive=everybody)

        def followed(size: int) -> bool:
            return int(last_status(standby.files).get("log_size", 0)) >= size

        all_.wait_for("a commitment of round 2", lambda: all_.said("update-committed", 2), timeout_s=150)
        all_.kill("coordinator")
        size_at_kill = len(all_.entries())
        all_.wait_for(
            "the standby's settlement",
            lambda: last_status(standby.files).get("settled"),
            timeout_s=150,
            alive=("standby",),
        )
        exits = {site: all_.processes[site].wait(30) for site in Parties.SITES}
        size_at_end = len(all_.entries())
        all_.start("coordinator")
        exits["coordinator"] = all_.processes["coordinator"].wait(60)
        assert followed(size_at_end)
        said = (all_.folder / "coordinator.out").read_text("utf-8")
        yield Story(all_, standby, size_at_kill, size_at_end, exits, said)


def test_the_standby_settles_the_study_and_the_nodes_end(story: Story) -> None:
    state = story.state
    assert state.settled
    assert state.leader == story.standby.key.public
    assert [done.outcome for done in state.closed] == ["aggregated"] * ROUNDS
    assert {site: story.exits[site] for site in Parties.SITES} == dict.fromkeys(Parties.SITES, 0)


def test_no_update_is_lost_and_no_budget_is_charged_twice(story: Story) -> None:
    assert all(len(done.admitted) == len(Parties.SITES) for done in story.state.closed)
    for site in Parties.SITES:
        budget = story.parties.budget(site)
        assert [(charge.round, charge.state) for charge in budget.charges()] == [
            (number, State.COMMITTED) for number in range(1, ROUNDS + 1)
        ]
        assert len(budget.history()) == 1 + 3 * ROUNDS


def test_nothing_is_paid_twice(story: Story) -> None:
    state = story.state
    assert state.ledger.minted == state.plan.reward.minted
    assert sum(state.ledger.balances.values()) + state.burned == state.ledger.minted
    kinds = Counter(entry.body.kind for entry in story.entries)
    assert kinds["term-began"] == kinds["study-settled"] == kinds["study-published"] == 1


def test_the_standby_goes_on_from_what_the_coordinator_wrote(story: Story) -> None:
    old, new = story.parties.history.log.entries(), story.standby.history(None).log.entries()
    began = story.state.began
    assert began is not None
    assert 0 < began <= story.size_at_kill
    assert new[:began] == old[:began]


def test_the_study_exports_and_verifies_offline_with_the_coordinator_s_key(story: Story, tmp_path: Path) -> None:
    folder, key = tmp_path / "export", story.parties.coordinator.key.public.did
    exported = run_command("study", "export", str(folder), "--dir", str(story.standby.files.path))
    assert exported.returncode == 0, exported.stderr
    verified = run_command("log", "verify", str(folder), "--key", key)
    assert verified.returncode == 0, verified.stderr


def test_the_coordinator_that_comes_back_refuses_to_go_on(story: Story) -> None:
    assert story.exits["coordinator"] == SupersededError.exit_code
    assert "this coordinator was silent for too long, and has ended" in story.said_at_end
    assert len(story.parties.history.log.entries()) == story.size_at_end
