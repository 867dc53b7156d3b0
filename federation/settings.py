"""A party's settings: one frozen value from ``accord.toml`` and the environment, and the names of a party's files.

The file says what lasts (who the party is, the lifetime budget of its subjects); the environment may override only what
belongs to a machine (addresses, patience, verbosity). No setting and no variable changes noise, sampling or consent.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from federation.errors import OperatorError
from federation.rules.wire import Number, Slug, describe, parse_toml

Multiaddress = Annotated[
    str, StringConstraints(pattern=r"^/(ip4|ip6|dns4|dns6)/[A-Za-z0-9.:-]{1,253}/tcp/[0-9]{1,5}$", max_length=300)
]

Announced = Annotated[
    str,
    StringConstraints(
        pattern=r"^/(ip4|ip6|dns4|dns6)/[A-Za-z0-9.:-]{1,253}/tcp/[0-9]{1,5}(/ws|/wss|/tls/ws)?$", max_length=300
    ),
]

WebSocketAddress = Annotated[
    str, StringConstraints(pattern=r"^$|^/(ip4|ip6)/[0-9a-fA-F.:]{1,45}/tcp/[0-9]{1,5}/ws$", max_length=300)
]

HostAndPort = Annotated[str, StringConstraints(pattern=r"^$|^([A-Za-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\]):[0-9]{1,5}$")]

# As `DatabaseUrl`, without what a TOML string would have to escape.
ProxyUrl = Annotated[str, StringConstraints(pattern=r"^$|^http://[!#-\[\]-~]{1,500}$")]

# Printable, without the characters that a TOML string would have to escape.
DatabaseUrl = Annotated[
    str, StringConstraints(pattern=r"^$|^postgres(ql)?(\+psycopg)?://[!#-\[\]-~]{1,2000}$", max_length=2048)
]

_FROM_ENVIRONMENT: Final = (
    *("listen", "websocket", "announce", "proxy", "peer_models", "request_timeout_s"),
    *("log_level", "log_format", "health"),
)
_FILE_BYTES_MAX: Final = 64 * 1024


class PartySettings(BaseModel):
    """What a coordinator or a node is started with (docs/reference/settings.md explains each field)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    role: Literal["coordinator", "standby", "node"]
    name: Slug
    listen: Multiaddress = "/ip4/127.0.0.1/tcp/0"
    websocket: WebSocketAddress = ""
    announce: tuple[Announced, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    health: HostAndPort = ""
    proxy: ProxyUrl = ""
    request_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 30
    peer_models: Literal["off", "fetch", "serve"] = "fetch"
    lifetime_epsilon: Annotated[Number, Field(gt=0, le=8)] = Decimal(3)
    lifetime_delta: Annotated[Number, Field(gt=0, le=Decimal("1e-5"))] = Decimal("1e-5")
    renyi_order: Annotated[int, Field(ge=2, le=256)] = 8
    consent_batch_size: Annotated[int, Field(ge=1, le=65536)] = 512
    consent_database: DatabaseUrl = ""
    subject_share_percent: Annotated[int, Field(ge=0, le=100)] = 50

    def to_toml(self) -> str:
        """The text of ``accord.toml``, every field written out."""
        return "".join(f"{name} = {_toml(value)}\n" for name, value in self.model_dump(mode="json").items())


@dataclass(frozen=True, slots=True)
class PartyFolder:
    """The names of the files of one party."""

    path: Path

    @property
    def settings(self) -> Path:
        """``accord.toml``."""
        return self.path / "accord.toml"

    @property
    def key(self) -> Path:
        """``identity.key``: the Ed25519 seed, mode 0600."""
        return self.path / "identity.key"

    @property
    def database(self) -> Path:
        """``accord.db``: SQLite."""
        return self.path / "accord.db"

    def consents(self, settings: PartySettings) -> Path | str:
        """Where the consents are: the database of the settings (a URL), else the party's own."""
        return settings.consent_database or self.database

    @property
    def blobs(self) -> Path:
        """``blobs/``: content-addressed files."""
        return self.path / "blobs"

    @property
    def evidence(self) -> Path:
        """``evidence/``: proofs that a party showed different histories (``accord log evidence``)."""
        return self.path / "evidence"

    @property
    def run(self) -> Path:
        """``run/``: process id, address and status while the party runs."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """``party.log``: what the process says."""
        return self.path / "party.log"


def make_settings(values: Mapping[str, Any]) -> PartySettings:
    """Settings from what a person typed.

    Raises:
        OperatorError: a value is mistyped or out of range.
    """
    try:
        return PartySettings.model_validate(values)
    except ValidationError as error:
        raise OperatorError(
            f"The settings are not valid: {describe(error)}.",
            remedy="Change the options that are named; docs/reference/settings.md explains each.",
        ) from error


def load_settings(folder: Path, environ: Mapping[str, str] | None = None) -> PartySettings:
    """Read ``folder/accord.toml``; ``ACCORD_LISTEN`` and the like win over it.

    Args:
        folder: the party's folder.
        environ: the environment; None takes the process's own.

    Raises:
        OperatorError: no such file, not TOML, or a field is missing, unknown, mistyped or out of range.
    """
    path = PartyFolder(folder).settings
    document = _read_toml(path)
    document |= _overrides(os.environ if environ is None else environ)
    try:
        return PartySettings.model_validate(document)
    except ValidationError as error:
        raise OperatorError(
            f"{path} (or an ACCORD_ variable) is not valid: {describe(error)}.",
            remedy="Mend the fields that are named; docs/reference/settings.md explains each.",
        ) from error


def create_settings(folder: Path, settings: PartySettings) -> Path:
    """Write ``folder/accord.toml`` once; the folder is made when it is missing, mode 0700.

    Raises:
        OperatorError: a party lives in the folder already, or the folder cannot be written.
    """
    path = PartyFolder(folder).settings
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(settings.to_toml())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise OperatorError(
            f"{folder} holds a party already, and nothing is overwritten.",
            remedy="Use that party, or choose an empty folder with --dir.",
        ) from None
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be written: {error.strerror}.",
            remedy="Choose a folder that you may write to.",
        ) from error
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        if len(data) > _FILE_BYTES_MAX:
            raise OperatorError(
                f"{path} has {len(data)} bytes; settings need no more than {_FILE_BYTES_MAX}.",
                remedy="Restore the file that `init` wrote.",
            )
        return parse_toml(data.decode("utf-8"))
    except FileNotFoundError:
        raise OperatorError(
            f"No party lives in {path.parent}: {path.name} is missing.",
            remedy="Check --dir, or make the party with `accord node init` or `accord coordinator init`.",
        ) from None
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {error.strerror}.", remedy="Run as the user who owns the party."
        ) from error
    except ValueError as error:
        raise OperatorError(f"{path} is not valid TOML: {error}.", remedy="Mend the line that is named.") from error


def _overrides(environ: Mapping[str, str]) -> dict[str, Any]:
    """The variables that are set; lists are separated by commas, and numbers are read as such."""
    found: dict[str, Any] = {}
    for field in _FROM_ENVIRONMENT:
        text = environ.get("ACCORD_" + field.upper())
        if text is None:
            continue
        found[field] = tuple(part.strip() for part in text.split(",") if part.strip()) if field == "announce" else text
    return found


def _toml(value: Any) -> str:
    """A TOML literal; the strings here hold no character that TOML would escape (patterns forbid them)."""
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'
