"""``accord node doctor`` beside a real coordinator: fit, coordinator gone, another party at its address."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from parties_on_loopback import Parties, run_command

from federation.cli.running import last_status
from federation.network.host import Libp2pHost
from federation.rules.keys import PrivateKey

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with Parties(tmp_path_factory.mktemp("doctor"), deadline_s=60) as made:
        yield made


def examined(parties: Parties, site: str) -> tuple[int, dict[str, Any]]:
    done = run_command("node", "doctor", "--dir", str(parties.folder / site), "--json")
    assert done.stdout, done.stderr
    findings = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    return done.returncode, findings


def test_a_node_that_can_take_part_is_told_so_with_its_line_and_its_round(parties: Parties) -> None:
    parties.start("coordinator")
    parties.wait_for(
        "the coordinator",
        lambda: last_status(parties.coordinator.files).get("study"),
        timeout_s=60,
        alive=("coordinator",),
    )
    code, findings = examined(parties, "ash")
    assert code == 0, findings
    assert {each["level"] for name, each in findings.items() if name not in ("memory", "disk")} == {"ok"}
    assert findings["line"]["figures"]["down_bytes_s"] > 0
    assert 0 < findings["round"]["figures"]["round_s"] < 60
    assert parties.budget("ash").spent() == 0, "nothing is charged"


def test_a_changed_file_is_found_before_a_round_finds_it(parties: Parties) -> None:
    rows = parties.folder / "birch.csv"
    rows.write_text(rows.read_text("utf-8") + "p99,50,100,no\n", "utf-8")
    code, findings = examined(parties, "birch")
    assert code == (7 if findings["port"]["level"] == "failed" else 2)
    assert "has changed" in findings["data"]["seen"]
    assert "--replace" in findings["data"]["remedy"]


def test_a_coordinator_that_is_gone_is_the_networks_matter(parties: Parties) -> None:
    if "coordinator" in parties.processes:
        parties.kill("coordinator")
    code, findings = examined(parties, "cedar")
    assert code == 7
    assert findings["port"]["level"] == "failed"
    assert findings["port"]["remedy"]


def test_another_party_at_the_coordinators_address_is_not_believed(parties: Parties) -> None:
    if "coordinator" in parties.processes:
        parties.kill("coordinator")
    listen = parties.coordinator.settings.listen
    with Libp2pHost(PrivateKey(bytes([7] * 32)), listen=listen):
        code, findings = examined(parties, "cedar")
    assert code == 7
    assert findings["greeting"]["level"] == "ok"
    assert findings["key"]["level"] == "failed"
