"""What a person found where a machine cannot decide: that a study keeps to a restriction of people's consents.

An ethics approval, a collaboration, a genetic study: whether a study meets such a restriction is for somebody at the
institution to judge. Their finding is a signed document about one restriction (a DUO modifier, with what it names) and
one study plan, dated, with its grounds and an end. It counts only where the decision would be "needs a person" for
exactly that restriction: it never turns a no into a yes, and it never widens what a person allowed.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from consent.rules.reasons import Reason
from federation.rules.canonical import sha256_hex
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.instant import parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import read
from federation.rules.wire import Sha256Hex, Text, Wire

APPROVAL_TYPE: Final = "application/vnd.accord.approval.v1+json"
_BYTES_MAX: Final = 16 * 1024


class Approval(Wire):
    """One finding.

    Attributes:
        duo: the restriction's DUO code.
        named: what the restriction names (countries, users, a day), as the decision's reason says it; empty if nothing.
        plan_hash: the study plan that was judged.
        by: who judged.
        grounds: on what grounds, such as the ethics committee's decision and its number.
        given_at: when.
        valid_until: until when it counts.
    """

    version: Literal[1] = 1
    duo: Annotated[str, StringConstraints(pattern=r"^DUO:[0-9]{7}$")]
    named: Annotated[str, Field(max_length=2000)] = ""
    plan_hash: Sha256Hex
    by: Text
    grounds: Text
    given_at: str
    valid_until: str

    @property
    def identifier(self) -> str:
        """SHA-256 of the document, hexadecimal."""
        return sha256_hex(self.to_payload())

    @property
    def ends(self) -> datetime:
        """When it stops counting."""
        return parse_instant(self.valid_until)

    def sign(self, key: PrivateKey) -> Envelope:
        """The finding, signed by the institution."""
        return sign(self.to_payload(), APPROVAL_TYPE, key)


def open_approval(data: bytes, *, institution: PublicKey) -> Approval:
    """Verify and read a finding of this institution.

    Raises:
        PeerError: the signature or the document is not valid.
    """
    envelope = open_envelope(data, payload_type=APPROVAL_TYPE, signer=institution, max_bytes=_BYTES_MAX)
    approval = read(Approval, envelope.payload, max_bytes=_BYTES_MAX)
    parse_instant(approval.given_at)
    parse_instant(approval.valid_until)
    return approval


def approved(
    reason: Reason, approvals: Collection[Approval], *, plan_hash: str | None, now: datetime
) -> Approval | None:
    """The finding that answers a reason for asking a person, the one that lasts longest; None if there is none."""
    if reason.code != "needs_person" or plan_hash is None:
        return None
    restriction = (reason.values.get("duo"), named_by(reason), plan_hash)
    found = [
        approval
        for approval in approvals
        if (approval.duo, approval.named, approval.plan_hash) == restriction
        and parse_instant(approval.given_at) <= now < approval.ends
    ]
    return max(found, key=lambda approval: approval.ends, default=None)


def named_by(reason: Reason) -> str:
    """What a reason's restriction names."""
    return reason.values.get("allowed_values") or reason.values.get("day") or ""
