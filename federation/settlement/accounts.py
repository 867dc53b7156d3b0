"""The file that says which institution is paid at which address: JSON or CSV.

    {"institution:ash": "0x5aAe...", "birch": "0xfB69..."}

or, in a file whose name ends in ``.csv``, the columns ``account`` and ``address``. An account may be written as the
institution's short name. Every address carries its checksum, and no two accounts share one.
"""

import csv
import io
from pathlib import Path
from typing import Any, Final

from federation.errors import AccordError, OperatorError
from federation.rules.canonical import SIZE_MAX_BYTES, parse
from federation.rules.ledger import INSTITUTION, account_kind

from .addresses import address_bytes

COLUMNS: Final = ["account", "address"]


def read_accounts(path: Path) -> dict[str, str]:
    """Institution's account -> address.

    Raises:
        OperatorError: the file cannot be read, is malformed, names an account or an address twice, or holds an address
            that :func:`address_bytes` refuses; the message names file and account.
    """
    pairs = _pairs(path)
    accounts: dict[str, str] = {}
    for name, address in pairs:
        account = name if ":" in name else f"{INSTITUTION}:{name}"
        try:
            if account_kind(account) != INSTITUTION:
                raise _refused(path, f"{account} is not an institution's account")
            address_bytes(address)
        except AccordError as error:
            raise OperatorError(f"{path}, {account[:80]}: {error.message}", remedy=error.remedy) from error
        if account in accounts:
            raise _refused(path, f"{account} is there twice")
        if address in accounts.values():
            raise _refused(path, f"{address} is there for two accounts; of two amounts a contract pays the larger one")
        accounts[account] = address
    return accounts


def _pairs(path: Path) -> list[tuple[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check --accounts.") from error
    if len(data) > SIZE_MAX_BYTES:
        raise _refused(path, f"it has more than {SIZE_MAX_BYTES} bytes")
    try:
        return _from_csv(data) if path.suffix.lower() == ".csv" else _from_json(parse(data))
    except AccordError as error:
        raise OperatorError(f"{path}: {error.message}", remedy=error.remedy) from error
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise _refused(path, str(error)) from error


def _from_csv(data: bytes) -> list[tuple[str, str]]:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    if not rows or rows[0] != COLUMNS:
        raise ValueError(f"its first line is not {','.join(COLUMNS)}")
    short = next((number for number, row in enumerate(rows, start=1) if row and len(row) != len(COLUMNS)), None)
    if short is not None:
        raise ValueError(f"line {short} does not have {len(COLUMNS)} columns")
    return [(row[0].strip(), row[1].strip()) for row in rows[1:] if row]


def _from_json(document: Any) -> list[tuple[str, str]]:
    if not isinstance(document, dict) or not all(isinstance(address, str) for address in document.values()):
        raise ValueError("it is not one object of accounts and addresses")
    return list(document.items())


def _refused(path: Path, why: str) -> OperatorError:
    return OperatorError(
        f"{path} is refused: {why}.",
        remedy='Write {"institution:NAME": "0x..."}, or a .csv file with the columns account,address.',
    )
