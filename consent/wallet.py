"""A wallet: many subjects' keys in one file, for tests, the demo and people who sign from a command line.

In a deployment each person's key lives with that person (in their browser, not extractable); a file that holds the keys
of many is for trying Accord out, and for a device owner's few licences. The file is JSON, mode 0600, replaced as a
whole: either the old or the new content is there after a crash. A key that exists is never overwritten.
"""

import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from consent.rules.receipt import REF_CHARACTERS_MAX
from federation.errors import AccordError, OperatorError
from federation.rules.canonical import parse
from federation.rules.keys import KEY_BYTES, PrivateKey

_FILE_BYTES_MAX: Final = 1 << 28


class Wallet:
    """The keys in one file; the file is made by the first :meth:`create`.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], dict[str, str]] | None = None

    def create(self, refs: Iterable[str]) -> list[str]:
        """Make a key for each of ``refs`` that has none; the names that are new, in order.

        Raises:
            OperatorError: a name is empty or too long, or the file cannot be read or written.
        """
        wanted = list(dict.fromkeys(refs))
        for ref in wanted:
            if not 1 <= len(ref) <= REF_CHARACTERS_MAX:
                raise OperatorError(
                    f"{ref[:80]!r} cannot be a subject's name.", remedy=f"Use 1 to {REF_CHARACTERS_MAX} characters."
                )
        with self._locked():
            seeds = self._seeds() if self._path.exists() else {}
            fresh = [ref for ref in wanted if ref not in seeds]
            if fresh or not self._path.exists():
                seeds = seeds | {ref: secrets.token_bytes(KEY_BYTES).hex() for ref in fresh}
                self._replace(seeds)
        return fresh

    def refs(self) -> tuple[str, ...]:
        """Every name that has a key, in the order of creation.

        Raises:
            OperatorError: the file is missing, open to other users, or not a wallet.
        """
        return tuple(self._seeds())

    def key(self, ref: str) -> PrivateKey:
        """The key of one name.

        Raises:
            OperatorError: the wallet has no such name, or the file cannot be used.
        """
        seed = self._seeds().get(ref)
        if seed is None:
            raise OperatorError(
                f"The wallet {self._path} has no key for {ref[:80]!r}.",
                remedy="Check the name, or make the key with `accord consent wallet`.",
            )
        return PrivateKey(bytes.fromhex(seed))

    def _seeds(self) -> dict[str, str]:
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._read is not None and self._read[0] == stamp:
                return self._read[1]
            _check_closed(self._path, status)
            seeds = _seeds_of(parse(self._path.read_bytes(), max_bytes=_FILE_BYTES_MAX))
        except OSError as error:
            raise OperatorError(
                f"The wallet {self._path} cannot be read: {error.strerror}.",
                remedy="Check --wallet, or make a wallet with `accord consent wallet`.",
            ) from error
        except (AccordError, ValueError) as error:
            if isinstance(error, OperatorError):
                raise
            raise OperatorError(
                f"{self._path} is not a wallet: {error}", remedy="Restore the file from your backup."
            ) from error
        self._read = (stamp, seeds)
        return seeds

    def _replace(self, seeds: dict[str, str]) -> None:
        text = json.dumps({"version": 1, "keys": seeds}, ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            # mkstemp creates with mode 0600; the new file is durable before it takes the old one's name.
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(self._path.parent)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: a lock on the folder, which is always there and leaves no file behind."""
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _seeds_of(document: Any) -> dict[str, str]:
    if not isinstance(document, dict) or set(document) != {"version", "keys"} or document["version"] != 1:
        raise ValueError("it does not hold version 1 of the format.")
    seeds = document["keys"]
    if not isinstance(seeds, dict) or not all(isinstance(seed, str) for seed in seeds.values()):
        raise ValueError("its keys are not texts.")
    if any(len(seed) != 2 * KEY_BYTES or not set(seed) <= set("0123456789abcdef") for seed in seeds.values()):
        raise ValueError(f"a key is not {2 * KEY_BYTES} hexadecimal digits.")
    return seeds


def _check_closed(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OperatorError(f"{path} is not a regular file.", remedy="Name the wallet's file itself.")
    if status.st_mode & 0o077:
        raise OperatorError(
            f"The wallet {path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}).",
            remedy=f"Close it with `chmod 600 {path}`; if others could have read it, make new keys.",
        )


def _unwritable(path: Path, error: OSError) -> OperatorError:
    return OperatorError(
        f"The wallet {path} cannot be written: {error.strerror}.",
        remedy="Choose a folder that exists and that you may write to.",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
