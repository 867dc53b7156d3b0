"""The receipt: the institution's signed word that it holds a record, and since when.

A withdrawal binds from its receipt on: the receipt exists only after the record is durable, and before any logging or
cosigning, so nobody can delay a withdrawal by withholding a signature.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from consent.rules.record import SEQ_MAX, Action
from federation.rules.envelope import Envelope, sign
from federation.rules.keys import PrivateKey
from federation.rules.study import Sha256Hex, Wire

RECEIPT_TYPE: Final = "application/vnd.accord.consent-receipt.v1+json"
REF_CHARACTERS_MAX: Final = 200


class Receipt(Wire):
    """What was received: ``record`` is the digest of the record's canonical bytes, ``subject_ref`` the local name."""

    version: Literal[1] = 1
    institution: str
    subject_ref: Annotated[str, StringConstraints(min_length=1, max_length=REF_CHARACTERS_MAX)]
    subject: str
    record: Sha256Hex
    action: Action
    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    received_at: str

    def sign(self, key: PrivateKey) -> Envelope:
        """The receipt, signed by the institution; the same receipt always gives the same bytes."""
        return sign(self.to_payload(), RECEIPT_TYPE, key)
