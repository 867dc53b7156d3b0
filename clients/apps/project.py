"""A Flower app's project folder, read once: its files, their hash, what its ``pyproject.toml`` says.

Everything is read into memory in one go, and both the hash and the copy that runs are made from those bytes: a file
that changes between check and use cannot matter. What is hidden (names that begin with a dot), compiled
(``__pycache__``, ``*.pyc``) or a virtual environment belongs neither to the hash nor to the copy.
"""

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from federation.errors import OperatorError

FILES_MAX: Final = 1000
PROJECT_BYTES_MAX: Final = 16 << 20

ConfigValue = bool | int | float | str
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Project:
    """One version of an app.

    Attributes:
        files: each file's path below the folder (with ``/``) and its bytes.
        client_app: where the ClientApp is, ``package.module:name``; empty: there is none.
        server_app: the same for the ServerApp.
        config: ``[tool.flwr.app.config]``, flattened with dots, as Flower's ``run_config``.
    """

    files: Mapping[str, bytes]
    client_app: str
    server_app: str
    config: Mapping[str, ConfigValue]

    @property
    def code_hash(self) -> str:
        """SHA-256 over (path, SHA-256 of the file) of every file, in order of path; hexadecimal."""
        digest = hashlib.sha256(b"accord/app\0")
        for path, data in sorted(self.files.items()):
            digest.update(path.encode("utf-8") + b"\0" + hashlib.sha256(data).digest())
        return digest.hexdigest()

    def write_to(self, folder: Path) -> None:
        """Write the files below ``folder``, which must not be there, readable by every user and writable by none."""
        folder.mkdir()
        for path, data in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o444)
        for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            place.chmod(0o755)  # whatever the umask is


def read_project(folder: Path) -> Project:
    """Read a project.

    Raises:
        OperatorError: no readable folder, a symbolic link or special file in it, too many or too large files, names
            that are not UTF-8, or a ``pyproject.toml`` that names no Flower app.
    """
    folder = folder.expanduser().resolve()
    files: dict[str, bytes] = {}
    total = 0
    try:
        for path in _walk(folder):
            name = path.relative_to(folder).as_posix()
            data = path.read_bytes()
            total += len(data)
            if len(files) == FILES_MAX or total > PROJECT_BYTES_MAX:
                raise OperatorError(
                    f"{folder} holds more than {FILES_MAX} files or {PROJECT_BYTES_MAX} bytes.",
                    remedy="Keep code in the project's folder, and data outside of it.",
                )
            name.encode("utf-8")
            files[name] = data
    except UnicodeEncodeError as error:
        raise OperatorError(f"A name in {folder} is not UTF-8.", remedy="Rename the file.") from error
    except OSError as error:
        raise OperatorError(
            f"{error.filename or folder} cannot be read: {error.strerror}.", remedy="Name the app's own folder."
        ) from error
    return described(files, folder)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that belongs to the project; a link could point out of it, and a pipe has no end."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in found}
    if "pyvenv.cfg" in names:
        return
    for entry in found:
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.name.endswith(".pyc"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        else:
            raise OperatorError(
                f"{entry.path} is a link or no plain file.", remedy="Put the file itself into the app's folder."
            )


def described(files: Mapping[str, bytes], folder: Path) -> Project:
    """What a project's files say of themselves.

    Raises:
        OperatorError: its ``pyproject.toml`` names no Flower app.
    """
    remedy = 'It needs [tool.flwr.app.components] with clientapp = "package.module:app", as Flower lays apps out.'
    try:
        app: Any = tomllib.loads(files["pyproject.toml"].decode("utf-8"))["tool"]["flwr"]["app"]
        components: Any = app["components"]
        references = [components.get(name, "") for name in ("clientapp", "serverapp")]
        config = dict(_flat(app.get("config", {})))
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError(f"{folder} has no pyproject.toml of a Flower app.", remedy=remedy) from error
    if not any(references) or not all(
        isinstance(text, str) and (not text or _REFERENCE.fullmatch(text)) for text in references
    ):
        raise OperatorError(f"{folder}/pyproject.toml does not say where the app is.", remedy=remedy)
    return Project(files, client_app=references[0], server_app=references[1], config=config)


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ConfigValue]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            yield prefix + name, value
        else:
            raise OperatorError(
                f"The app's setting {prefix}{name} is neither a number nor a text.",
                remedy="Flower allows numbers, texts, true and false in [tool.flwr.app.config].",
            )


def parse_settings(given: list[str]) -> dict[str, ConfigValue]:
    """``name=value`` texts, each value in TOML's spelling; what is none is a text.

    Raises:
        OperatorError: one has no name or no value.
    """
    settings: dict[str, ConfigValue] = {}
    for text in given:
        name, found, value = text.partition("=")
        if not found or not name.strip():
            raise OperatorError(f"{text!r} is not name=value.", remedy="Write, for instance, partition-id=0.")
        try:
            parsed: Any = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        settings[name.strip()] = parsed if isinstance(parsed, bool | int | float | str) else value
    return settings
