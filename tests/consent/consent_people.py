"""People, institutions and signed records for the tests of consent."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from consent.rules.decision import Use
from consent.rules.record import Action, Mechanism, Terms, build, sign_record
from federation.rules.canonical import sha256_hex
from federation.rules.keys import PrivateKey

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def person(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


HOSPITAL = person("hospital")
OTHER_HOSPITAL = person("another hospital")
ANNA = person("anna")
BEN = person("ben")


def terms(**changes: Any) -> Terms:
    usual: dict[str, Any] = {
        "purposes": ("DUO:0000006",),
        "epsilon_max": Decimal(3),
        "delta_max": Decimal("0.00001"),
        "valid_until": NOW + 365 * DAY,
    }
    return Terms(**{**usual, **changes})


def use(**changes: Any) -> Use:
    usual: dict[str, Any] = {
        "institution": HOSPITAL.public.did,
        "kind": Mechanism.CONSENT,
        "duo": "DUO:0000007",
        "disease": "MONDO:0005267",
        "epsilon": Decimal(3),
        "delta": Decimal("0.00001"),
    }
    return Use(**{**usual, **changes})


def record(
    action: Action = Action.GRANT,
    *,
    after: bytes | None = None,
    subject: PrivateKey = ANNA,
    institution: PrivateKey = HOSPITAL,
    signer: PrivateKey | None = None,
    seq: int | None = None,
    prev: str | None = None,
    valid_from: datetime = NOW - DAY,
    mechanism: Mechanism = Mechanism.CONSENT,
    number: int = 1,
    **changes: Any,
) -> bytes:
    """A signed record that continues ``after`` (which is number ``number``), or starts a chain."""
    signer = signer or subject
    document = build(
        subject=subject.public,
        institution=institution.public,
        action=action,
        seq=seq if seq is not None else (1 if after is None else number + 1),
        prev=prev if prev is not None else (None if after is None else sha256_hex(after)),
        valid_from=valid_from,
        terms=terms(**changes) if action is Action.GRANT else None,
        mechanism=mechanism,
        issuer=signer.public,
    )
    return sign_record(document, signer, created=NOW - DAY)


def chain(*actions: Action, subject: PrivateKey = ANNA, attested: bool = False) -> tuple[bytes, ...]:
    """One whole chain; with ``attested`` the institution signs the withdrawals."""
    history: list[bytes] = []
    for action in actions:
        signer = HOSPITAL if attested and action is Action.WITHDRAW else subject
        after = history[-1] if history else None
        history.append(record(action, after=after, number=len(history), subject=subject, signer=signer))
    return tuple(history)
