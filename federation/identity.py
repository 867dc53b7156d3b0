"""A party's key on disk: one file, made once, readable by its owner alone.

The file holds the Ed25519 seed (RFC 8032, section 5.1.5) as 64 hexadecimal digits and a newline. It is created with
``O_EXCL``, so that an existing key is never overwritten, and it is refused when other users of the machine may read it:
whoever holds the seed *is* the party. Encryption at rest and hardware keys are left to the operating system.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from federation.errors import OperatorError
from federation.rules.keys import KEY_BYTES, PrivateKey

KEY_FILE_MODE: Final = 0o600
_FILE_BYTES_MAX: Final = 2 * KEY_BYTES + 2


def create_key(path: Path) -> PrivateKey:
    """Make a fresh key and store it durably at ``path``, mode 0600.

    Raises:
        OperatorError: the file exists already, or the folder cannot be written.
    """
    key = PrivateKey(secrets.token_bytes(KEY_BYTES))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEY_FILE_MODE)
    except FileExistsError:
        raise OperatorError(
            f"{path} exists already, and a key is never overwritten.",
            remedy="Use the party that lives in this folder, or choose an empty folder.",
        ) from None
    except OSError as error:
        raise OperatorError(
            f"The key file {path} cannot be written: {error.strerror}.",
            remedy="Choose a folder that exists and that you may write to.",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), KEY_FILE_MODE)  # whatever the umask says
            file.write(key.seed.hex().encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # half a key must not stay behind; the error below says why there is none
            path.unlink()
        raise OperatorError(
            f"The key file {path} cannot be written: {error.strerror}.",
            remedy="Make room on the disk, then run the command again.",
        ) from error
    return key


def load_key(path: Path) -> PrivateKey:
    """Read the key at ``path``.

    Raises:
        OperatorError: no such file, not a regular file, open to other users, or not a key.
    """
    try:
        # O_NONBLOCK: a pipe that somebody put in the key's place must not hang us; for a file it changes nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise OperatorError(
            f"There is no key at {path}.",
            remedy="Check --dir, or make the party with `accord node init` or `accord coordinator init`.",
        ) from None
    except OSError as error:
        raise OperatorError(
            f"The key file {path} cannot be read: {error.strerror}.",
            remedy=f"Run as the user who owns it (`ls -l {path}` names the owner).",
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OperatorError(f"{path} is not a regular file.", remedy="Put the key file itself in its place.")
        if status.st_mode & 0o077:
            raise OperatorError(
                f"The key file {path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}).",
                remedy=f"Close it with `chmod 600 {path}`; if others could have read it, make a new party.",
            )
        text = os.read(descriptor, _FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(text) > _FILE_BYTES_MAX or len(seed) != KEY_BYTES:
        raise OperatorError(
            f"{path} is not a key file: it must hold {2 * KEY_BYTES} hexadecimal digits.",
            remedy="Restore the file from your backup.",
        )
    return PrivateKey(seed)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
