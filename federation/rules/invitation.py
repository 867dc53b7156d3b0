"""An invitation: one string that tells an institution where the coordinator is and lets it join one study once.

The string is ``accord1.`` and base64url of canonical JSON. It names the coordinator's address with its peer id (so the
connection authenticates the coordinator), the study, the site's short name, and a one-time token of 32 random bytes of
which the coordinator keeps only the hash.
"""

import base64
import binascii
from typing import Annotated, Final, Literal

from pydantic import StringConstraints, ValidationError

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import parse_canonical, tagged_hash
from federation.rules.keys import PublicKey
from federation.rules.wire import Slug, Wire

PREFIX: Final = "accord1."
TOKEN_BYTES: Final = 32
_CHARACTERS_MAX: Final = 2048


class Invitation(Wire):
    """What the string holds."""

    version: Literal[1] = 1
    address: Annotated[str, StringConstraints(min_length=1, max_length=400)]
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    site: Slug
    token: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @property
    def coordinator(self) -> PublicKey:
        """The coordinator's key, from the peer id that ends the address."""
        return PublicKey.from_peer_id(self.address.rsplit("/p2p/", 1)[-1])

    @property
    def token_hash(self) -> str:
        """What the coordinator stores, hexadecimal."""
        return token_hash(self.token)

    def __str__(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(self.to_payload()).decode("ascii").rstrip("=")


def token_hash(token: str) -> str:
    """The stored form of a one-time token, hexadecimal."""
    return tagged_hash("invitation-token", token.encode("ascii")).hex()


def parse_invitation(text: str) -> Invitation:
    """Read an invitation that a person pasted.

    Raises:
        OperatorError: it is not a whole invitation.
    """
    text = text.strip()
    try:
        if not text.startswith(PREFIX) or len(text) > _CHARACTERS_MAX:
            raise ValueError("it does not start with accord1.")
        body = text.removeprefix(PREFIX)
        document = parse_canonical(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        invitation = Invitation.model_validate(document)
        _ = invitation.coordinator
    except (ValueError, binascii.Error, ValidationError, PeerError) as error:
        raise OperatorError(
            "This is not an invitation, or a part of it is missing.",
            remedy="Paste the whole string that the coordinator sent; it starts with accord1.",
        ) from error
    return invitation
