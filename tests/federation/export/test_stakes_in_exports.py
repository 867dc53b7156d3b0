"""What follows a settlement in an export: cases checked from their blobs, releases, and how final it is."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from federation.errors import PeerError
from federation.export.verification import verify_export
from federation.rules.admission import consent_origin
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.entries import StakeBurned, StakeReleased, StakeSlashed
from federation.rules.equivocation import two_roots
from federation.rules.keys import PrivateKey
from federation.rules.pledges import FalseUtility, SplitView

Staked = Callable[..., Any]


def split(key: PrivateKey) -> SplitView:
    trees = (Checkpoint(consent_origin(key.public), 9, bytes([number]) * 32) for number in (1, 2))
    evidence = two_roots(*(sign_checkpoint(tree, key) for tree in trees))
    assert evidence is not None
    return SplitView(evidence=evidence.to_bytes().decode())


def test_stakes_end_in_the_log_and_the_export_verifies(staked: Staked, tmp_path: Path) -> None:
    study = staked().played()
    ash, birch = study.institutions["ash"], study.institutions["birch"]
    study.append(StakeSlashed(case=split(ash)), party=ash)
    name = next(iter(study.state.slashes))
    study.checkpoint()
    report = verify_export(study.export(tmp_path / "slashed"), study.key.public)
    assert report.final
    assert report.ledger["balances"]["stake:ash"] == 300
    study.now += timedelta(seconds=2500)
    study.append(StakeBurned(slash=name), party=ash)
    study.append(StakeReleased(), party=birch)
    study.checkpoint(cosigners=1)
    report = verify_export(study.export(tmp_path / "ended"), study.key.public)
    assert not report.final, "the settlement is, what followed is not yet"
    ledger = report.ledger
    assert (ledger["balances"]["stake:ash"], ledger["balances"]["stake:birch"]) == (0, 0)
    assert sum(ledger["balances"].values()) + ledger["escrow"] + ledger["burned"] == ledger["minted"]


def test_a_case_whose_blob_proves_nothing_is_named(staked: Staked, tmp_path: Path) -> None:
    study = staked().played()
    proof = study.blobs.put(b"no challenge")
    case = FalseUtility(round=1, coalition=(), proof=proof)
    study.append(StakeSlashed(case=case), party=study.key)
    study.checkpoint()
    index = study.state.size - 1
    with pytest.raises(PeerError, match=rf"^log/{index:06}\.json: The challenge is refused"):
        verify_export(study.export(tmp_path / "export"), study.key.public)
