"""The figures of a full demo: complete, consistent with one another, and the same when recomputed by other means."""

import base64
import hashlib
import json
import re
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise, permutations
from math import factorial
from pathlib import Path
from typing import Any

import base58
import dp_accounting
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dp_accounting.rdp import RdpAccountant
from running_demo import FinishedDemo
from signed_documents import log_entries, updates_by_site

pytestmark = pytest.mark.processes

SITES = ("cleveland", "hungary", "switzerland", "va_long_beach")
ROWS = 920
ORDER = 8
FIGURES_OF_A_SITE = {
    *("rows", "consented", "refused", "expired", "withdrawn", "epsilon", "delta", "value", "reward_microcredits"),
    *(
        f"auc_{model}{bound}"
        for model in ("alone_nonprivate", "federated", "pooled_nonprivate")
        for bound in ("", "_low", "_high")
    ),
}


def exact(utility: float) -> Fraction:
    """A published utility; it is a multiple of 2^-40, which a float holds exactly."""
    value = Fraction(utility)
    assert (value * 2**40).denominator == 1
    return value


def test_report_has_every_field_and_one_key_per_site(report: dict[str, Any]) -> None:
    assert {"id", "plan_hash", "rounds", "epsilon", "delta"} <= set(report["study"])
    assert tuple(report["sites"]) == SITES
    for figures in report["sites"].values():
        assert set(figures) >= FIGURES_OF_A_SITE
    for number, line in enumerate(report["rounds"], start=1):
        assert line["round"] == number
        assert sorted(line["participants"]) == sorted(SITES)
        assert line["refused"] == []
        assert re.fullmatch("[0-9a-f]{64}", line["aggregate_sha256"])
        assert 0.5 < line["auc_validation"] <= 1
        assert set(line["subjects_used"]) == set(line["epsilon_spent"]) == set(SITES)
    assert len(report["rounds"]) == report["study"]["rounds"] == 15
    assert set(report["ledger"]) == {"minted", "escrow", "burned", "pool", "balances"}
    assert {"size", "root", "checkpoint", "key"} <= set(report["log"])
    assert {"v_empty", "v_all", "rounds"} <= set(report["valuation"])
    assert 0 < report["seconds"]["total"] < 180


def test_each_party_is_a_process_with_a_key_of_its_own(report: dict[str, Any]) -> None:
    parties = report["processes"]
    assert [(party["role"], party["name"]) for party in parties] == [
        ("coordinator", "coordinator"),
        *(("node", site) for site in SITES),
    ]
    assert len({party["pid"] for party in parties}) == len(parties)
    assert len({party["peer_id"] for party in parties}) == len(parties)


def test_rows_add_up_to_the_published_ones(report: dict[str, Any]) -> None:
    sites = report["sites"].values()
    for figures in sites:
        assert figures["refused"] + figures["expired"] + figures["consented"] == figures["rows"]
        assert figures["refused"] == pytest.approx(figures["rows"] / 10, abs=1)
        assert figures["expired"] == pytest.approx(figures["rows"] / 30, abs=1)
        for model in ("alone_nonprivate", "federated", "pooled_nonprivate"):
            assert 0 <= figures[f"auc_{model}_low"] <= figures[f"auc_{model}"] <= figures[f"auc_{model}_high"] <= 1
    assert sum(figures["rows"] + figures["validation_rows"] for figures in sites) == ROWS
    assert {site: figures["withdrawn"] for site, figures in report["sites"].items()} == dict.fromkeys(SITES, 0) | {
        "cleveland": 10
    }


def as_dp_event(event: dict[str, Any]) -> dp_accounting.DpEvent:
    """A logged event in the accountant's own types; an event of another kind is an error here."""
    if event["type"] == "composed":
        return dp_accounting.ComposedDpEvent([as_dp_event(part) for part in event["events"]])
    assert set(event) == {"type", "noise_multiplier"}
    return dp_accounting.GaussianDpEvent(float(event["noise_multiplier"]))


def test_privacy_spent_is_what_the_logged_events_cost(demo: FinishedDemo, report: dict[str, Any]) -> None:
    updates = updates_by_site(demo.export)
    assert set(updates) == set(SITES)
    for site, figures in report["sites"].items():
        accountant = RdpAccountant(orders=[ORDER])
        for line in report["rounds"]:
            accountant.compose(as_dp_event(updates[site][line["round"]]["event"]))
            spent = accountant.get_epsilon(figures["delta"])
            assert line["epsilon_spent"][site] == pytest.approx(spent, abs=1e-9)
        assert figures["epsilon"] == pytest.approx(spent, abs=1e-9)
        assert figures["epsilon"] <= 3
        assert figures["delta"] <= 1e-5
        assert figures["renyi_order"] == ORDER
        assert figures["epsilon_pld"] < figures["epsilon"]


def test_values_are_the_shapley_values_of_the_published_tables(demo: FinishedDemo, report: dict[str, Any]) -> None:
    """By definition: over all orders in which the sites could have joined, the mean of what each one added."""
    total: dict[str, Fraction] = defaultdict(Fraction)
    for table in report["valuation"]["rounds"]:
        players = table["players"]
        assert sorted(table["coalitions"], key=int) == [str(mask) for mask in range(2 ** len(players))]
        for order in permutations(range(len(players))):
            joined = 0
            for player in order:
                before, joined = joined, joined | 1 << player
                gain = exact(table["coalitions"][str(joined)]) - exact(table["coalitions"][str(before)])
                total[players[player]] += gain / factorial(len(players))
    assert {site: float(value) for site, value in total.items()} == {
        site: figures["value"] for site, figures in report["sites"].items()
    }
    settled = log_entries(demo.export)[-1]["body"]
    assert {paid["site"]: Fraction(paid["value"]) for paid in settled["payments"]} == total


def test_values_add_up_and_tables_telescope(report: dict[str, Any]) -> None:
    valuation = report["valuation"]
    tables = [table["coalitions"] for table in valuation["rounds"]]
    full = str(2 ** len(SITES) - 1)
    assert tables[0]["0"] == valuation["v_empty"]
    assert tables[-1][full] == valuation["v_all"]
    assert all(before[full] == after["0"] for before, after in pairwise(tables))
    values = sum(figures["value"] for figures in report["sites"].values())
    assert values == pytest.approx(valuation["v_all"] - valuation["v_empty"], abs=1e-9)


def test_no_credit_is_lost_or_made(report: dict[str, Any]) -> None:
    ledger, sites = report["ledger"], report["sites"]
    assert sum(ledger["balances"].values()) + ledger["escrow"] + ledger["burned"] == ledger["minted"]
    rewards = {site: figures["reward_microcredits"] for site, figures in sites.items()}
    assert sum(rewards.values()) + ledger["burned"] == ledger["pool"] == ledger["minted"]
    assert ledger["escrow"] == 0
    assert ledger["balances"] == {f"institution:{site}": reward for site, reward in rewards.items() if reward}
    gains = {site: max(0.0, figures["value"]) for site, figures in sites.items()}
    for site, reward in rewards.items():
        if reward:
            assert reward == pytest.approx(ledger["pool"] * gains[site] / sum(gains.values()), abs=1)


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def ed25519_key(did: str) -> Ed25519PublicKey:
    """did:key: multibase base58btc of the multicodec prefix 0xed01 and the key."""
    assert did.startswith("did:key:z")
    raw = base58.b58decode(did.removeprefix("did:key:z"))
    assert raw[:2] == b"\xed\x01"
    return Ed25519PublicKey.from_public_bytes(raw[2:])


def test_checkpoint_is_signed_over_the_root_of_the_exported_log(demo: FinishedDemo, report: dict[str, Any]) -> None:
    """The note is opened by hand: text, signature line ``— NAME base64(4 bytes of key hash, signature)``."""
    files = sorted((demo.export / "log").iterdir())
    root = merkle_root([path.read_bytes() for path in files])
    log = report["log"]
    assert (log["size"], log["root"]) == (len(files), root.hex())
    body, _, signatures = log["checkpoint"].partition("\n\n")
    origin, size, shown_root = body.split("\n")
    assert (int(size), base64.b64decode(shown_root)) == (len(files), root)
    name, signature = signatures.split("\n")[0].removeprefix("— ").split(" ")
    assert name == origin
    ed25519_key(log["key"]).verify(base64.b64decode(signature)[4:], f"{body}\n".encode())
    cosigned = [line for line in signatures.split("\n")[1:] if line]
    assert len(cosigned) >= 3, "three of four witnesses make it final"
    assert log["checkpoint"] == (demo.export / "checkpoints" / f"{log['size']:06d}.note").read_text("utf-8")


def test_report_and_log_tell_of_the_same_study(demo: FinishedDemo, report: dict[str, Any]) -> None:
    entries = log_entries(demo.export)
    assert {entry["study"] for entry in entries} == {report["study"]["id"]}
    assert entries[0]["body"]["plan_hash"] == report["study"]["plan_hash"]
    closed = [entry["body"]["model"] for entry in entries if entry["body"]["kind"] == "round-closed"]
    assert closed == [line["aggregate_sha256"] for line in report["rounds"]]


def test_last_lines_say_where_the_report_is_and_what_to_try(demo: FinishedDemo, report: dict[str, Any]) -> None:
    lines = demo.stdout.splitlines()
    assert lines[0] == f"Report: {demo.folder / 'report.html'}"
    mean = sum(figures["auc_federated"] for figures in report["sites"].values()) / len(SITES)
    assert f"{mean:.3f}" in lines[1]
    tries = [line.split() for line in lines[3:]]
    assert [line[:3] for line in tries] == [
        ["accord", "log", "verify"],
        ["accord", "consent", "withdraw"],
        ["accord", "rewards", "statement"],
    ]
    assert demo.stderr == "", "it is quiet where nobody watches"


def test_progress_is_written_down_step_by_step(demo: FinishedDemo) -> None:
    journal = json.loads((demo.folder / "demo.json").read_text("utf-8"))
    steps = ["data", "coordinator", "institutions", "withdrawals", "study", "export", "verify"]
    assert [step for step in journal["done"] if step in steps] == steps
    assert all(seconds >= 0 for seconds in journal["seconds"].values())
    assert Path(demo.folder / "processes.json").exists()
