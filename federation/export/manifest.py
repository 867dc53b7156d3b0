"""The manifest of an export: every other file's length and hash, signed by the coordinator.

It covers each byte of the folder, so that a flipped bit is found and named even where nothing else would notice. What
the files mean is verified independently of it (``verification``): a coordinator that signs a manifest over false files
is caught there.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from federation.errors import PeerError
from federation.export.layout import MANIFEST, MANIFEST_BYTES_MAX, ExportFolder, placed
from federation.rules.canonical import sha256_hex
from federation.rules.documents import StudyId
from federation.rules.envelope import open_envelope, sign
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import read
from federation.rules.wire import Sha256Hex, Wire

MANIFEST_TYPE: Final = "application/vnd.accord.export-manifest.v1+json"


class ExportedFile(Wire):
    """One file: its SHA-256 and its length."""

    sha256: Sha256Hex
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Wire):
    """All files of the export but the manifest itself, and the log's head."""

    version: Literal[1] = 1
    study: StudyId
    log_size: Annotated[int, Field(ge=1)]
    log_root: Sha256Hex
    files: dict[str, ExportedFile]


def sign_manifest(
    files: Mapping[str, ExportedFile], *, study: str, log_size: int, log_root: bytes, key: PrivateKey
) -> bytes:
    """The signed manifest's bytes."""
    manifest = Manifest(study=study, log_size=log_size, log_root=log_root.hex(), files=dict(files))
    return sign(manifest.to_payload(), MANIFEST_TYPE, key).to_bytes()


def exported_file(data: bytes) -> ExportedFile:
    """What the manifest says about a file with these bytes."""
    return ExportedFile(sha256=sha256_hex(data), bytes=len(data))


def check_manifest(folder: ExportFolder, *, signers: Collection[PublicKey]) -> tuple[Manifest, PublicKey]:
    """Verify the manifest, by one of ``signers``, and that it covers exactly the files that are there; who signed it.

    Raises:
        PeerError: a signature, a missing, added or altered file; the file is named.
    """
    with placed(MANIFEST):
        data = folder.read(MANIFEST)
        envelope = open_envelope(data, payload_type=MANIFEST_TYPE, signers=signers, max_bytes=MANIFEST_BYTES_MAX)
        manifest = read(Manifest, envelope.payload, max_bytes=MANIFEST_BYTES_MAX)
    found = set(folder.sizes) - {MANIFEST}
    for path in sorted(set(manifest.files) - found):
        raise PeerError(f"{path}: the file is missing.", remedy="Ask for a complete export.")
    for path in sorted(found - set(manifest.files)):
        raise PeerError(f"{path}: the file was added.", remedy="Remove it, or ask for a fresh export.")
    for path, expected in sorted(manifest.files.items()):
        if exported_file(folder.read(path)) != expected:
            raise PeerError(
                f"{path}: the file is not the one that was exported.",
                remedy="Ask for the export again; keep both copies if you need to show that one was altered.",
            )
    return manifest, envelope.signer
