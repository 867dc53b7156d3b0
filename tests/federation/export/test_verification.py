import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError, UnprovenSignerError
from federation.export.manifest import exported_file, sign_manifest
from federation.export.verification import verify_export
from federation.rules.checkpoint import Checkpoint
from federation.rules.entries import Payment, StudySettled
from federation.rules.keys import PrivateKey

SALT = bytes(range(32))
STRANGER = PrivateKey(bytes([55]) * 32)


@pytest.fixture
def copy(exported: tuple[Any, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[1], tmp_path / "copy"))


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sign_again(study: Any, folder: Path, key: PrivateKey | None = None) -> None:
    """What a coordinator does who changes files and signs a new manifest over them."""
    files = {path: exported_file((folder / path).read_bytes()) for path in files_of(folder) if path != "manifest.json"}
    manifest = sign_manifest(
        files,
        study=study.state.study,
        log_size=study.log.size,
        log_root=study.log.root(),
        key=key or study.key,
    )
    (folder / "manifest.json").write_bytes(manifest)


def test_an_honest_study_verifies(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    report = verify_export(folder, study.key.public)
    report.require_proven_signer()
    assert report.study == study.plan.study_id
    assert report.log_size == study.log.size
    assert report.log_root == study.log.root()
    assert report.files == len(files_of(folder))
    assert [item.sites for item in report.rounds] == [("ash", "birch", "cedar"), ("ash", "cedar")]
    assert report.rounds[1].refused == {"birch": "budget: nothing is left"}
    assert report.final
    assert report.utilities_recomputed == 8 + 4


def test_values_add_up_to_the_improvement_and_rewards_to_the_pool(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    report = verify_export(folder, study.key.public)
    first, last = study.tables[0].utilities[0], study.tables[-1].utilities[-1]
    assert sum(report.values.values()) == Fraction(last - first, 2**40)
    ledger = report.ledger
    assert sum(report.rewards.values()) + ledger["burned"] == 1_000_000 == ledger["minted"]
    assert ledger["escrow"] == 0
    assert ledger["balances"] == {f"institution:{site}": amount for site, amount in report.rewards.items() if amount}


def test_without_a_key_the_signer_is_unproven(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    report = verify_export(folder, None)
    assert report.coordinator == study.key.public
    assert "unproven" in report.to_text()
    with pytest.raises(UnprovenSignerError):
        report.require_proven_signer()


def test_another_key_is_refused_with_the_place(exported: tuple[Any, Path]) -> None:
    with pytest.raises(PeerError, match=r"^plan\.json"):
        verify_export(exported[1], STRANGER.public)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_byte_is_found_and_named(exported: tuple[Any, Path], copy: Path, data: st.DataObject) -> None:
    study, _ = exported
    path = data.draw(st.sampled_from(files_of(copy)))
    original = (copy / path).read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[place] ^= data.draw(st.integers(1, 255))
    (copy / path).write_bytes(changed)
    try:
        with pytest.raises(PeerError) as caught:
            verify_export(copy, study.key.public)
        assert path in caught.value.message
    finally:
        (copy / path).write_bytes(original)


def test_every_missing_file_is_named(exported: tuple[Any, Path], copy: Path) -> None:
    for path in files_of(copy):
        original = (copy / path).read_bytes()
        (copy / path).unlink()
        with pytest.raises(PeerError, match=path) as caught:
            verify_export(copy, exported[0].key.public)
        assert "missing" in caught.value.message or "signer" in caught.value.message
        (copy / path).write_bytes(original)


@pytest.mark.parametrize(
    "path",
    ["extra.json", "log/999999.json", "log/notes.txt", f"blobs/{'a' * 64}", "agreements/dogwood.json", "checkpoints/x"],
)
@pytest.mark.parametrize("signed", [False, True])
def test_an_added_file_is_named(exported: tuple[Any, Path], copy: Path, path: str, *, signed: bool) -> None:
    (copy / path).write_bytes(b"{}")
    if signed:
        sign_again(exported[0], copy)
    with pytest.raises(PeerError, match=path):
        verify_export(copy, exported[0].key.public)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("log/000003.json", "log/000004.json"),
        ("agreements/ash.json", "agreements/birch.json"),
        ("checkpoints/000001.note", "checkpoints/000005.note"),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_exchanged_files_are_named(
    exported: tuple[Any, Path], copy: Path, first: str, second: str, *, signed: bool
) -> None:
    one, two = (copy / first).read_bytes(), (copy / second).read_bytes()
    (copy / first).write_bytes(two)
    (copy / second).write_bytes(one)
    if signed:
        sign_again(exported[0], copy)
    with pytest.raises(PeerError, match=first):
        verify_export(copy, exported[0].key.public)


def test_exchanged_blobs_are_named_even_under_a_new_manifest(exported: tuple[Any, Path], copy: Path) -> None:
    first, second = sorted((copy / "blobs").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    sign_again(exported[0], copy)
    with pytest.raises(PeerError, match=f"blobs/{first.name}"):
        verify_export(copy, exported[0].key.public)


def test_a_truncated_log_is_refused_even_under_a_new_manifest(exported: tuple[Any, Path], copy: Path) -> None:
    study, _ = exported
    (copy / f"log/{study.log.size - 1:06d}.json").unlink()
    sign_again(study, copy)
    with pytest.raises(PeerError):
        verify_export(copy, study.key.public)


def test_a_manifest_of_another_key_is_refused(exported: tuple[Any, Path], copy: Path) -> None:
    sign_again(exported[0], copy, STRANGER)
    with pytest.raises(PeerError, match=r"^manifest\.json"):
        verify_export(copy, exported[0].key.public)


def test_a_part_of_another_study_is_refused(exported: tuple[Any, Path], copy: Path, tmp_path: Path, play: Any) -> None:
    study, _ = exported
    other = play(key=STRANGER).played()
    theirs = other.export(tmp_path / "theirs")
    shutil.copy(theirs / "plan.json", copy / "plan.json")
    with pytest.raises(PeerError, match=r"^plan\.json"):
        verify_export(copy, study.key.public)
    with pytest.raises(PeerError, match=r"^manifest\.json"):
        verify_export(copy, None)


def test_links_devices_and_folders_are_refused(exported: tuple[Any, Path], copy: Path, tmp_path: Path) -> None:
    key = exported[0].key.public
    target = copy / "log/000002.json"
    moved = tmp_path / "elsewhere.json"
    target.rename(moved)
    target.symlink_to(moved)
    with pytest.raises(PeerError, match=r"log/000002\.json.*plain file"):
        verify_export(copy, key)
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(PeerError, match=r"log/000002\.json.*plain file"):
        verify_export(copy, key)
    target.unlink()
    moved.rename(target)
    for name in ("drafts", "log/inner"):
        (copy / name).mkdir()
        with pytest.raises(PeerError, match=name):
            verify_export(copy, key)
        (copy / name).rmdir()
    shutil.rmtree(copy / "blobs")
    (copy / "blobs").mkdir()
    with pytest.raises(PeerError, match="blobs"):
        verify_export(copy, key)


def test_a_folder_that_is_not_there_is_the_operators(tmp_path: Path) -> None:
    with pytest.raises(OperatorError):
        verify_export(tmp_path / "nowhere", None)


def test_an_oversize_file_is_refused_before_it_is_read(exported: tuple[Any, Path], copy: Path) -> None:
    with (copy / "log/000002.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(PeerError, match=r"log/000002\.json.*more than"):
        verify_export(copy, exported[0].key.public)


def nudged(place: int, amount: int) -> Callable[[list[int]], list[int]]:
    def change(utilities: list[int]) -> list[int]:
        return [value + amount * (index == place) for index, value in enumerate(utilities)]

    return change


def favoured(body: StudySettled) -> StudySettled:
    """One micro-credit from the burned or from the last to the first."""
    first, *rest = body.payments
    last = rest[-1]
    better = Payment(party=first.party, site=first.site, value=first.value, reward=first.reward + 1)
    worse = Payment(party=last.party, site=last.site, value=last.value, reward=last.reward - 1)
    if last.reward:
        return body.model_copy(update={"payments": (better, *rest[:-1], worse)})
    return body.model_copy(update={"payments": (better, *rest), "burned": body.burned - 1})


def flattered(body: StudySettled) -> StudySettled:
    first, *rest = body.payments
    value = str(Fraction(first.value) + Fraction(1, 2**40))
    return body.model_copy(update={"payments": (first.model_copy(update={"value": value}), *rest)})


@pytest.mark.parametrize(
    ("step", "change", "place"),
    [
        ("aggregate", lambda model: model + 1, r"^log/000013\.json: Round 1"),
        ("utilities-1", nudged(3, 2**13), r"^blobs/.*coalition 3 in round 1"),
        ("utilities-2", nudged(0, 1), r"^log/\d+\.json: .*do not join"),
        ("study-settled", favoured, r"^log/\d+\.json: .*payments"),
        ("study-settled", flattered, r"^log/\d+\.json: .*values"),
    ],
)
def test_a_lying_coordinator_is_caught(
    step: str, change: Callable[[Any], Any], place: str, tmp_path: Path, play: Any
) -> None:
    study = play(changes={step: change}).played()
    folder = study.export(tmp_path / "export")
    with pytest.raises(PeerError, match=place):
        verify_export(folder, study.key.public)


def test_a_utility_within_the_tolerance_passes(tmp_path: Path, play: Any) -> None:
    study = play(changes={"utilities-1": nudged(3, 2**11)}).played()
    assert verify_export(study.export(tmp_path / "export"), study.key.public).utilities_recomputed == 12


def test_a_checkpoint_over_another_history_is_caught(tmp_path: Path, play: Any) -> None:
    def forked(checkpoint: Checkpoint) -> Checkpoint:
        return Checkpoint(checkpoint.origin, checkpoint.size, bytes(32)) if checkpoint.size == 5 else checkpoint

    study = play(changes={"checkpoint": forked}).played()
    with pytest.raises(PeerError, match=r"^checkpoints/000005\.note.*not over these entries"):
        verify_export(study.export(tmp_path / "export"), study.key.public)


def test_a_settlement_needs_its_quorum_before_and_after(tmp_path: Path, play: Any) -> None:
    late = play()
    late.start()
    late.play_round(1)
    late.play_round(2)
    late.settle(cosigners=1)
    with pytest.raises(PeerError, match="1 witnesses cosigned where a settlement needs 2"):
        verify_export(late.export(tmp_path / "late"), late.key.public)
    early = play()
    early.start()
    early.play_round(1)
    early.play_round(2)
    early.checkpoint(cosigners=1)
    early.settle()
    with pytest.raises(PeerError, match="1 witnesses"):
        verify_export(early.export(tmp_path / "early"), early.key.public)


def test_exchanged_validation_rows_are_caught_even_under_a_new_manifest(exported: tuple[Any, Path], copy: Path) -> None:
    study = exported[0]
    (copy / "validation/validation.csv").write_bytes(study.rows.replace(b"p3,39", b"p3,40"))
    sign_again(study, copy)
    with pytest.raises(PeerError, match=r"^validation/validation\.csv"):
        verify_export(copy, exported[0].key.public)


@pytest.mark.parametrize("text", [SALT.hex().encode(), SALT.hex().upper().encode() + b"\n", b"\xff", b"00\n", b""])
def test_a_salt_in_another_form_is_caught(exported: tuple[Any, Path], copy: Path, text: bytes) -> None:
    (copy / "validation/salt").write_bytes(text)
    sign_again(exported[0], copy)
    with pytest.raises(PeerError, match="validation/salt"):
        verify_export(copy, exported[0].key.public)


def test_sealed_rows_are_not_exported_and_not_accepted(tmp_path: Path, play: Any) -> None:
    study = play(disclosure="sealed").played()
    folder = study.export(tmp_path / "export")
    report = verify_export(folder, study.key.public)
    assert report.utilities_recomputed is None
    assert "sealed" in report.to_text()
    (folder / "validation").mkdir()
    (folder / "validation/validation.csv").write_bytes(study.rows)
    sign_again(study, folder)
    with pytest.raises(PeerError, match=r"^validation/validation\.csv.*not disclosed"):
        verify_export(folder, study.key.public)


def test_a_running_study_verifies_as_far_as_it_goes(tmp_path: Path, play: Any) -> None:
    study = play()
    study.start()
    study.play_round(1)
    report = verify_export(study.export(tmp_path / "export"), study.key.public)
    assert not report.settled
    assert len(report.rounds) == 1
    assert report.rewards == {}
    assert report.ledger["escrow"] == 1_000_000
    assert "not settled yet" in report.to_text()


def test_a_study_that_only_opened_verifies(tmp_path: Path, play: Any) -> None:
    study = play()
    study.publish()
    report = verify_export(study.export(tmp_path / "export"), study.key.public)
    assert report.log_size == 1
    assert report.quorum is None
    assert not report.final


def test_a_round_without_quorum_and_a_late_update_verify(tmp_path: Path, play: Any) -> None:
    study = play()
    study.start()
    study.play_round(1, declining="ash", late="birch")
    study.play_round(2, late="cedar")
    study.settle()
    report = verify_export(study.export(tmp_path / "export"), study.key.public)
    assert [item.outcome for item in report.rounds] == ["no-quorum", "aggregated"]
    assert report.rounds[0].sites == ()
    assert set(report.rounds[0].refused) == {"ash", "birch", "cedar"}
    assert report.rounds[1].sites == ("ash", "birch")
    assert report.rewards["cedar"] == 0
