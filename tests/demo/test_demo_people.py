"""Whom a full demo used: exactly those who said yes and had not withdrawn; nothing about them left the hospitals."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from running_demo import FinishedDemo
from signed_documents import every_document, leaves, updates_by_site
from sqlmodel import select

from clients.data.check import CheckedData, check_data
from clients.data.dataset import find_dataset, load_dataset
from clients.folder import open_node_folder
from clients.selection import RowsUsed
from clients.storage import RoundUse
from consent.registry import RoundState
from consent.registry.tables import StoredRecord
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import open_checkpoint
from federation.rules.instant import parse_instant
from federation.rules.study import open_plan
from federation.storage.database import read

pytestmark = pytest.mark.processes

SITES = ("cleveland", "hungary", "switzerland", "va_long_beach")

# Where a whole number may stand in a document that leaves a hospital or the coordinator. None of them counts people:
# the nominal cohort (and the weight made of it) is a round, public figure, fixed before anybody was asked.
PUBLIC_NUMBERS = {
    *(
        "version",
        "term",
        "round",
        "size",
        "bytes",
        "log_size",
        "old_size",
        "update_bytes",
        "minted",
        "burned",
        "reward",
    ),
    *("nominal_cohort", "weights", "utilities"),
}


@dataclass(frozen=True, slots=True)
class People:
    """What a hospital's own folder says about its people."""

    said_yes: frozenset[str]
    said_otherwise: frozenset[str]
    withdrew_at: dict[str, datetime]
    uses: tuple[RoundUse, ...]
    data: CheckedData


def people_of(demo: FinishedDemo, site: str) -> People:
    with (demo.folder / "people" / f"{site}.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    yes = {line["subject"] for line in lines if line["action"] == "grant" and not line["valid_until"]}
    node = open_node_folder(demo.node(site))
    plan, _ = open_plan(node.membership().plan)
    with read(node.engine) as session:
        received = session.exec(select(StoredRecord).where(StoredRecord.action == "withdraw"))
        withdrew = {record.ref: parse_instant(record.received_at) for record in received}
        uses = tuple(session.exec(select(RoundUse).order_by(RoundUse.round)))  # type: ignore[arg-type] # a column
    entry = find_dataset(node.engine, None)
    data = check_data(load_dataset(entry), plan.schema_contract, subject_column=entry.subject_column)
    return People(frozenset(yes), frozenset(line["subject"] for line in lines) - yes, withdrew, uses, data)


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_round_used_exactly_the_rows_that_consents_allowed(
    demo: FinishedDemo, report: dict[str, Any], site: str
) -> None:
    """The node's record names the people; the commitment in the signed, logged update binds it to their rows."""
    people = people_of(demo, site)
    logged = updates_by_site(demo.export)[site]
    assert [use.round for use in people.uses] == sorted(logged) == list(range(1, 16))
    for use in people.uses:
        used = frozenset(json.loads(use.subjects))
        opened = RowsUsed.of(people.data, used, salt=bytes.fromhex(use.salt))
        assert opened.commitment.hex() == use.rows_commitment == logged[use.round]["dataset_commitment"]
        decided = parse_instant(use.decided_at)
        gone = {name for name, when in people.withdrew_at.items() if when < decided}
        assert used.isdisjoint(people.said_otherwise | gone)
        assert used in {people.said_yes, people.said_yes - set(people.withdrew_at)}
        assert report["rounds"][use.round - 1]["subjects_used"][site] == len(used) == use.eligible
    assert len({use.salt for use in people.uses}) == 15


def test_who_withdrew_is_in_no_later_round(demo: FinishedDemo, report: dict[str, Any]) -> None:
    people = people_of(demo, "cleveland")
    assert len(people.withdrew_at) == 10
    assert set(people.withdrew_at) <= people.said_yes
    used = [frozenset(json.loads(use.subjects)) for use in people.uses]
    first = next(number for number, names in enumerate(used, start=1) if names.isdisjoint(people.withdrew_at))
    assert 7 < first < 15, "they withdrew when the middle round was closed, and rounds followed"
    for number, names in enumerate(used, start=1):
        assert names == (people.said_yes - set(people.withdrew_at) if number >= first else people.said_yes)
    assert report["events"] == [{"round": first, "what": "withdrawal", "site": "cleveland", "count": 10}]


def test_time_to_stop_is_reported_and_nothing_was_used_after_it(demo: FinishedDemo, report: dict[str, Any]) -> None:
    stop = report["time_to_stop"]
    assert (stop["withdrawals"], stop["uses_after"]) == (10, 0)
    assert 0 <= stop["median_s"] <= stop["max_s"] < 30
    assert stop["in_flight"] <= 10
    assert 0 <= stop["decided_max_s"] < 60
    page = (demo.folder / "report.html").read_text("utf-8")
    assert "Time to stop: " in page
    assert "uses after that: 0" in page


def test_every_yes_was_bound_by_two_other_hospitals(demo: FinishedDemo, site: str) -> None:
    """Over libp2p, through the coordinator: the cosignatures that the hospital's own folder holds, verified anew."""
    keys = {name: open_node_folder(demo.node(name)).key.public for name in SITES}
    registry = open_node_folder(demo.node(site)).registry
    others = frozenset(keys.values()) - {keys[site]}
    assert registry.witnesses() == (others, 2)
    signed = registry.cosigned_checkpoint()
    assert signed is not None
    opened = open_checkpoint(signed.to_bytes(), origin=registry.origin, signer=keys[site], witnesses=others)
    assert len(opened.cosignatures) >= 2
    for ref in people_of(demo, site).said_yes:
        grant = registry.history(ref)[0]  # what a person said later may still wait for a batch: it binds all the same
        assert registry.inclusion(sha256_hex(grant)).index < opened.checkpoint.size


def test_no_hospital_was_found_to_show_two_logs(demo: FinishedDemo, site: str) -> None:
    assert not (demo.node(site) / "evidence").exists()


def test_people_are_shown_their_rounds_and_their_part_of_the_reward(
    demo: FinishedDemo, report: dict[str, Any], site: str
) -> None:
    registry = open_node_folder(demo.node(site)).registry
    people = people_of(demo, site)
    earned = report["sites"][site]["reward_microcredits"]
    for ref in sorted(people.said_yes)[:20]:
        (part,) = registry.participation(ref).studies
        used = [use.round for use in people.uses if ref in json.loads(use.subjects)]
        assert [shown.round for shown in part.rounds] == used
        assert all(shown.state is RoundState.RELEASED for shown in part.rounds)
        assert [model.sha256 for model in part.models] == [line["aggregate_sha256"] for line in report["rounds"]]
        assert part.microcredits == earned // 2 // len(people.said_yes)
    assert all(registry.participation(ref).studies == () for ref in sorted(people.said_otherwise)[:5])


def test_nobody_withdrew_elsewhere(demo: FinishedDemo) -> None:
    assert all(not people_of(demo, site).withdrew_at for site in SITES[1:])


def test_no_count_of_people_is_in_any_document(demo: FinishedDemo) -> None:
    """Each whole number of the export stands under a name that is known not to count people."""
    names, found = set(), 0
    for file, document in every_document(demo.export):
        if file == "plan.json":
            continue  # written before anybody was asked
        for place, value in leaves(document):
            number = isinstance(value, int) and not isinstance(value, bool)
            if number or (isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value)):
                key = next(part for part in reversed(place) if part != "[]" and not part.startswith("did:"))
                names.add(key)
                found += 1
    assert found > 1000
    assert names - PUBLIC_NUMBERS <= {"noise_multiplier", "value"}, "decimals without a fraction"


def test_no_name_and_no_row_of_a_patient_is_in_the_export(demo: FinishedDemo) -> None:
    rows = {}
    for site in SITES:
        with (demo.folder / "data" / f"{site}.csv").open("rb") as file:
            header, *lines = file.read().splitlines()
        assert header.split(b",")[0] == b"patient_id"
        rows |= dict(line.split(b",", 1) for line in lines)
    everything = b"\n".join(readable(demo.export))
    assert len(everything) > 100_000
    assert [name for name in rows if name in everything] == []
    outside = everything.replace((demo.export / "validation" / "validation.csv").read_bytes(), b"")
    assert [name for name, row in rows.items() if row in outside] == []


def readable(export: Path) -> Iterator[bytes]:
    """Each file as it is, and each document with its envelopes opened."""
    for path in sorted(export.rglob("*")):
        if path.is_file():
            yield path.read_bytes()
    for _, document in every_document(export):
        yield json.dumps(document, ensure_ascii=False).encode("utf-8")


def test_validation_rows_are_the_only_ones_and_no_patient_s_of_a_hospital(demo: FinishedDemo) -> None:
    shown = (demo.export / "validation" / "validation.csv").read_bytes()
    assert shown == (demo.folder / "data" / "validation.csv").read_bytes()
    assert len(shown.splitlines()) > 100
