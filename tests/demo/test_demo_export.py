"""The exported study, verified offline by strangers, and altered in every way that files can be."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_demo import FinishedDemo, accord

from federation.errors import AccordError, PeerError
from federation.export.verification import verify_export
from federation.rules.keys import PrivateKey, PublicKey

pytestmark = pytest.mark.processes

KINDS = ("agreements", "blobs", "checkpoints", "log", "validation")


@pytest.fixture(scope="module")
def key(report: dict[str, Any]) -> PublicKey:
    return PublicKey.from_did(report["log"]["key"])


@pytest.fixture(scope="module")
def altered(demo: FinishedDemo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to alter; every test leaves it as it was."""
    folder = tmp_path_factory.mktemp("altered") / "export"
    shutil.copytree(demo.export, folder)
    return folder


def refused(folder: Path, key: PublicKey) -> str:
    """Why the verification refuses the folder."""
    with pytest.raises(AccordError) as caught:
        verify_export(folder, key)
    assert isinstance(caught.value, PeerError)
    assert caught.value.remedy
    return str(caught.value)


@contextmanager
def written(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_verifies_with_the_coordinator_s_key(demo: FinishedDemo, report: dict[str, Any], key: PublicKey) -> None:
    found = verify_export(demo.export, key)
    assert (found.log_size, found.log_root.hex()) == (report["log"]["size"], report["log"]["root"])
    assert found.final
    assert found.signer_proven
    assert found.settled
    assert {site: float(value) for site, value in found.values.items()} == {
        site: figures["value"] for site, figures in report["sites"].items()
    }
    assert found.rewards == {site: figures["reward_microcredits"] for site, figures in report["sites"].items()}
    assert found.utilities_recomputed == 15 * 2**4
    assert found.files == sum(path.is_file() for path in demo.export.rglob("*"))


def test_command_tells_a_proven_signer_from_an_unproven_one_and_from_another(
    demo: FinishedDemo, report: dict[str, Any]
) -> None:
    good = accord("log", "verify", demo.export, "--key", report["log"]["key"])
    assert (good.returncode, good.stderr) == (0, "")
    unproven = accord("log", "verify", demo.export)
    assert unproven.returncode == 3
    assert "Verified" in unproven.stdout
    assert "--key" in unproven.stderr
    other = accord("log", "verify", demo.export, "--key", PrivateKey(bytes(range(32))).public.did)
    assert other.returncode == 4
    assert "plan.json" in other.stderr


def test_every_flipped_byte_is_found_and_its_file_named(altered: Path, key: PublicKey) -> None:
    """One position of each file, three of the first of each kind; which ones is drawn anew in every run."""
    draw = random.Random()
    by_kind: dict[str, list[Path]] = {}
    for path in sorted(altered.rglob("*")):
        if path.is_file():
            by_kind.setdefault(path.parent.name, []).append(path)
    for kind, paths in by_kind.items():
        for number, path in enumerate(paths):
            data = path.read_bytes()
            places = {draw.randrange(len(data))} | ({0, len(data) - 1} if number < 1 or kind == "export" else set())
            for place in places:
                bit = 1 << draw.randrange(8)
                with written(path, data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]):
                    why = refused(altered, key)
                assert str(path.relative_to(altered)) in why, f"byte {place}, bit {bit}"
    assert set(by_kind) == {*KINDS, "export"}
    verify_export(altered, key)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\n", lambda _: b""])
@pytest.mark.parametrize("kind", [*KINDS, "plan.json", "manifest.json"])
def test_a_longer_a_shorter_and_an_empty_file_are_found(altered: Path, key: PublicKey, kind: str, change: Any) -> None:
    path = altered / kind if kind.endswith(".json") else max((altered / kind).iterdir())
    with written(path, change(path.read_bytes())):
        assert str(path.relative_to(altered)) in refused(altered, key)


@pytest.mark.parametrize("kind", [*KINDS, "plan.json", "manifest.json"])
def test_a_missing_file_is_found(altered: Path, key: PublicKey, kind: str, tmp_path: Path) -> None:
    paths = [altered / kind] if kind.endswith(".json") else sorted((altered / kind).iterdir())
    for path in (paths[0], paths[len(paths) // 2], paths[-1]):
        path.rename(tmp_path / "away")
        assert str(path.relative_to(altered)) in refused(altered, key)
        (tmp_path / "away").rename(path)


@pytest.mark.parametrize(
    "name",
    [
        *("README", "agreements/other.json", "blobs/" + "0" * 64, "checkpoints/000001.note", "log/999999.json"),
        *("log/000000.json~", "validation/more.csv", "notes/file", ".hidden", "blobs/.hidden"),
    ],
)
def test_an_added_file_is_found(altered: Path, key: PublicKey, name: str) -> None:
    path = altered / name
    assert not path.exists()
    new_folder = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"{}")
    assert (name.partition("/")[0] if new_folder else name) in refused(altered, key)
    path.unlink()
    if new_folder:
        path.parent.rmdir()


@pytest.mark.parametrize("kind", KINDS)
def test_exchanged_files_are_found(altered: Path, key: PublicKey, kind: str) -> None:
    first, *_, last = sorted((altered / kind).iterdir())
    one, other = first.read_bytes(), last.read_bytes()
    with written(first, other), written(last, one):
        why = refused(altered, key)
    assert str(first.relative_to(altered)) in why or str(last.relative_to(altered)) in why


def test_a_link_in_place_of_a_file_is_found(altered: Path, demo: FinishedDemo, key: PublicKey) -> None:
    path = altered / "plan.json"
    path.unlink()
    path.symlink_to(demo.export / "plan.json")
    assert "plan.json" in refused(altered, key)
    path.unlink()
    shutil.copyfile(demo.export / "plan.json", path)
    verify_export(altered, key)
