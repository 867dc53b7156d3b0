"""A finished demo is never overwritten; an interrupted one leaves no process, and goes on where it stopped.

The interrupted one is that of the sensor owners (``--sensors``): the same job, under licences.
"""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from running_demo import FinishedDemo, InterruptedDemo, accord, processes_of
from signed_documents import log_entries, updates_by_site

from clients.folder import open_node_folder
from clients.privacy.budget import BudgetLedger
from consent.rules.record import Action, Mechanism, open_record
from federation.coordinator.folder import open_coordinator
from federation.coordinator.history import system_clock
from federation.export.verification import verify_export
from federation.rules.keys import PublicKey
from federation.settings import load_settings
from federation.storage.log import SqliteLog

pytestmark = pytest.mark.processes

STATIONS = ("ewr", "jfk", "lga")
ROUNDS = 4


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file of a folder, by its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_second_run_with_the_same_folder_refuses_and_changes_no_byte(demo: FinishedDemo) -> None:
    before = bytes_of(demo.folder)
    again = accord("demo", "--out", demo.folder, "--seed", "7")
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr
    other = accord("demo", "--out", demo.folder, "--seed", "8", "--rounds", "3")
    assert other.returncode == 2
    assert bytes_of(demo.folder) == before


def test_a_node_that_has_stopped_knows_that_its_study_is_settled(demo: FinishedDemo) -> None:
    status = json.loads(accord("node", "status", "--dir", demo.node("hungary"), "--json").stdout)
    assert (status["running"], status["settled"], status["round"]) == (False, True, status["rounds"])
    assert status["awaited"] == "nobody: the study is settled"


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    refused = accord("demo", "--out", tmp_path)
    assert refused.returncode == 2
    assert "not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_process_is_left_behind(demo: FinishedDemo) -> None:
    assert processes_of(demo.folder) == []


def test_an_interrupted_demo_leaves_no_process_and_says_how_to_go_on(interrupted: InterruptedDemo) -> None:
    assert interrupted.exit_code == 130
    assert set(interrupted.pids) == {"coordinator", *STATIONS}
    assert (interrupted.alive, interrupted.processes) == ([], [])
    assert f"accord demo --out {interrupted.folder} --seed 7 --rounds 4 --sensors" in interrupted.stderr
    assert not (interrupted.folder / "report.json").exists()


@pytest.fixture(scope="module")
def halfway(interrupted: InterruptedDemo) -> dict[str, Any]:
    """What is durable at the moment of the interruption."""
    opened = open_coordinator(interrupted.folder / "coordinator")
    (study,) = opened.studies()
    return {
        "log": SqliteLog(opened.engine, study).entries(),
        "charges": {site: charges(interrupted.folder, site) for site in STATIONS},
        "settled": opened.history(study).state.settled,
    }


@pytest.fixture(scope="module")
def resumed(interrupted: InterruptedDemo, halfway: dict[str, Any]) -> FinishedDemo:
    """The demo after the command that it printed itself."""
    assert halfway["log"]
    line = next(line for line in interrupted.stderr.splitlines() if line.startswith("To go on: "))
    program, *arguments = shlex.split(line.removeprefix("To go on: "))
    assert program == "accord"
    done = accord(*arguments, seconds=120)
    assert done.returncode == 0, done.stderr
    return FinishedDemo(interrupted.folder, done.stdout, done.stderr)


def charges(folder: Path, site: str) -> list[tuple[int, str]]:
    """(round, state) of everything that a station's budget was charged."""
    ledger = BudgetLedger(open_node_folder(folder / "nodes" / site).engine, clock=system_clock)
    return [(charge.round, str(charge.state)) for charge in ledger.charges() if charge.counts]


def test_the_study_goes_on_where_it_stopped(resumed: FinishedDemo, halfway: dict[str, Any]) -> None:
    assert not halfway["settled"], "the interruption came in the middle"
    opened = open_coordinator(resumed.folder / "coordinator")
    (study,) = opened.studies()
    entries = SqliteLog(opened.engine, study).entries()
    assert entries[: len(halfway["log"])] == halfway["log"]
    assert len(entries) > len(halfway["log"])
    kinds = [entry["body"]["kind"] for entry in log_entries(resumed.export)]
    assert (kinds.count("round-closed"), kinds.count("study-started"), kinds.count("study-settled")) == (ROUNDS, 1, 1)
    assert verify_export(resumed.export, PublicKey.from_did(resumed.report["log"]["key"])).settled


def test_nothing_is_charged_twice(resumed: FinishedDemo, halfway: dict[str, Any]) -> None:
    updates = updates_by_site(resumed.export)
    for site in STATIONS:
        now = charges(resumed.folder, site)
        assert [number for number, _ in now] == list(range(1, ROUNDS + 1))
        assert [number for number, _ in halfway["charges"][site]] == [
            number for number, _ in now[: len(halfway["charges"][site])]
        ]
        accountant = RdpAccountant(orders=[resumed.report["sites"][site]["renyi_order"]])
        for number, state in now:
            if state == "committed":
                events = updates[site][number]["event"]["events"]
                parts = [dp_accounting.GaussianDpEvent(float(event["noise_multiplier"])) for event in events]
                accountant.compose(dp_accounting.ComposedDpEvent(parts))
        spent = accountant.get_epsilon(resumed.report["sites"][site]["delta"])
        assert resumed.report["sites"][site]["epsilon"] == pytest.approx(spent, abs=1e-9)
        assert spent <= 3


def test_nothing_is_paid_twice(resumed: FinishedDemo) -> None:
    ledger = resumed.report["ledger"]
    rewards = sum(figures["reward_microcredits"] for figures in resumed.report["sites"].values())
    assert rewards + ledger["burned"] == ledger["pool"] == ledger["minted"]
    assert sum(ledger["balances"].values()) == rewards


def test_a_licence_binds_each_station_and_days_are_what_is_protected(resumed: FinishedDemo) -> None:
    for site in STATIONS:
        node = open_node_folder(resumed.node(site))
        ((name, history),) = node.registry.histories().items()
        (record,) = map(open_record, history)
        assert name == "*"
        assert (record.mechanism, record.action) == (Mechanism.LICENCE, Action.GRANT)
        figures = resumed.report["sites"][site]
        days = {
            line.split(",")[0] for line in (resumed.folder / "data" / f"{site}.csv").read_text("utf-8").split("\n")[1:]
        } - {""}
        assert figures["subjects"] == len(days)
        assert figures["rows"] == figures["consented"] > figures["subjects"]
        assert (figures["refused"], figures["expired"], figures["withdrawn"]) == (0, 0, 0)
        for line in resumed.report["rounds"]:
            assert line["subjects_used"][site] == len(days)


def test_the_sensors_report_says_what_is_protected_and_what_needs_no_learning(resumed: FinishedDemo) -> None:
    page = (resumed.folder / "report.html").read_text("utf-8")
    assert "day of a station" in page
    assert "licence" in page
    names = {line["name"] for line in resumed.report["baselines"]}
    assert {"persistence", "climatology", "federated", "alone_nonprivate", "pooled_nonprivate"} == names


def test_two_demos_do_not_share_a_port(demo: FinishedDemo, interrupted: InterruptedDemo) -> None:
    addresses = {load_settings(folder / "coordinator").listen for folder in (demo.folder, interrupted.folder)}
    assert len(addresses) == 2
    assert all(address.startswith("/ip4/127.0.0.1/tcp/") for address in addresses)
    assert json.loads((demo.folder / "processes.json").read_text("utf-8")) != interrupted.pids
