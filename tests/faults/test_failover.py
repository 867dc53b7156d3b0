"""A small study of real processes: the coordinator is killed in a round, for good, and the standby settles it.

The processes are forked, as in ``every_step``, so that none loads torch again; this one opens no folder before the last
of them has ended.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from every_step import Step, exit_of, start
from node_kills import ended, forked
from parties_on_loopback import Parties

from clients.folder import open_node_folder
from clients.privacy.budget import BudgetLedger, State
from federation.cli.main import main as accord
from federation.cli.running import last_status
from federation.coordinator.folder import CoordinatorFolder, open_coordinator
from federation.coordinator.history import system_clock
from federation.errors import SupersededError
from federation.rules.entries import Entry, open_signed_entry
from federation.rules.state import StudyState
from federation.settings import PartyFolder

pytestmark = [pytest.mark.processes, pytest.mark.timeout(420)]

DEADLINE_S = 90
"""Never reached: rounds end when everybody has answered."""
AFTER_S = 8
ROUNDS = 2
WAIT_S_MAX = 150.0
SIZE_AT_KILL = 16
"""Publication, three agreements, the start, a round of nine entries, the next round's opening, one commitment."""
COMMITTED = Step("federation/storage/log:append < federation/coordinator/history:append", "after", SIZE_AT_KILL)


def prepare(folder: Path, out: int) -> None:
    """Make every party's folder; the coordinator's address."""
    with Parties(folder, deadline_s=DEADLINE_S, rounds=ROUNDS, failover_s=AFTER_S) as parties:
        os.write(out, parties.address.encode("utf-8"))


class Running:
    """The processes, by the party's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: dict[str, int] = {}

    def start(self, name: str, *words: str, target: Step | None = None) -> None:
        self.pids[name] = start(self.folder, name, *words, target=target)

    def end_of(self, name: str) -> int:
        """How it ends by itself.

        Raises:
            AssertionError: it does not, in time.
        """
        codes: list[int] = []

        def is_over() -> bool:
            code = exit_of(self.pids[name])
            codes.extend([] if code is None else [code])
            return bool(codes)

        self.until(f"the end of {name}", is_over)
        del self.pids[name]
        return codes[0]

    def until(self, what: str, happened: Callable[[], Any]) -> None:
        """Wait until something has happened.

        Raises:
            AssertionError: it has not, in time.
        """
        end = time.monotonic() + WAIT_S_MAX
        while not happened():
            if time.monotonic() > end:
                paths = sorted([*self.folder.glob("*/party.log"), *self.folder.glob("*.out")])
                said = [f"-- {path.relative_to(self.folder)}\n{path.read_text('utf-8')[-1500:]}" for path in paths]
                raise AssertionError("\n".join([f"{WAIT_S_MAX} s are over; waiting for {what}", *said]))
            time.sleep(0.05)

    def status(self, name: str) -> dict[str, Any]:
        return last_status(PartyFolder(self.folder / name))

    def stop(self, name: str) -> int:
        """SIGTERM, and how it ends."""
        os.kill(self.pids[name], signal.SIGTERM)
        return self.end_of(name)

    def kill_all(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@dataclass
class Story:
    """What happened, as the folders show it afterwards."""

    folder: Path
    exits: dict[str, int]
    said_at_end: str

    @cached_property
    def coordinator(self) -> CoordinatorFolder:
        return open_coordinator(self.folder / "coordinator")

    @cached_property
    def standby(self) -> CoordinatorFolder:
        return open_coordinator(self.folder / "standby")

    @property
    def state(self) -> StudyState:
        return self.standby.history(None).state

    @property
    def entries(self) -> list[Entry]:
        signers = (self.coordinator.key.public, self.standby.key.public)
        return [open_signed_entry(data, signers=signers)[0] for data in self.standby.history(None).log.entries()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("failover")
    address, prepared = ended(*forked(prepare, folder))
    assert prepared == 0
    running = Running(folder)
    try:
        running.start("coordinator", target=COMMITTED)
        running.start("standby", "coordinator", "standby", "--of", address)
        running.until("the standby to follow", lambda: running.status("standby").get("phase") == "following")
        for site in Parties.SITES:
            running.start(site)
        exits = {"killed": running.end_of("coordinator")}
        exits |= {site: running.end_of(site) for site in Parties.SITES}
        running.start("coordinator")
        exits["back"] = running.end_of("coordinator")
        exits["standby"] = running.stop("standby")
        yield Story(folder, exits, (folder / "coordinator.out").read_text("utf-8"))
    finally:
        running.kill_all()


def test_the_standby_settles_the_study_and_the_nodes_end(story: Story) -> None:
    state = story.state
    assert story.exits["killed"] == -signal.SIGKILL
    assert state.settled
    assert state.leader == story.standby.key.public
    assert [done.outcome for done in state.closed] == ["aggregated"] * ROUNDS
    assert {name: story.exits[name] for name in ("standby", *Parties.SITES)} == dict.fromkeys(
        ("standby", *Parties.SITES), 0
    )


def test_no_update_is_lost_and_no_budget_is_charged_twice(story: Story) -> None:
    assert all(len(done.admitted) == len(Parties.SITES) for done in story.state.closed)
    for site in Parties.SITES:
        budget = BudgetLedger(open_node_folder(story.folder / site).engine, clock=system_clock)
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
    old, new = story.coordinator.history(None).log.entries(), story.standby.history(None).log.entries()
    began = story.state.began
    assert began is not None
    assert 0 < began <= SIZE_AT_KILL
    assert new[:began] == old[:began]


def test_the_study_exports_and_verifies_offline_with_the_coordinator_s_key(story: Story, tmp_path: Path) -> None:
    folder, key = tmp_path / "export", story.coordinator.key.public.did
    assert accord(["study", "export", str(folder), "--dir", str(story.standby.files.path)]) == 0
    assert accord(["log", "verify", str(folder), "--key", key]) == 0


def test_the_coordinator_that_comes_back_refuses_to_go_on(story: Story) -> None:
    assert story.exits["back"] == SupersededError.exit_code
    assert "this coordinator was silent for too long, and has ended" in story.said_at_end
    assert story.coordinator.history(None).log.size == SIZE_AT_KILL
