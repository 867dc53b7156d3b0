"""Who takes a coordinator's place: the plan's section, and the entry with which the standby begins to lead."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from federation.rules.keys import PublicKey
from federation.rules.terms import PARTICIPANTS_MAX
from federation.rules.wire import Did, Wire

_Address = Annotated[
    str, StringConstraints(pattern=r"^/(ip4|ip6|dns4|dns6)/[A-Za-z0-9.:-]{1,253}/tcp/[0-9]{1,5}$", max_length=300)
]
_PromiseText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Failover(Wire):
    """Who takes the coordinator's place when it is gone for good (``federation.rules.succession``).

    Attributes:
        standby: the key that may take over, once.
        address: where the standby is dialled (a multiaddress without ``/p2p/``): nodes know it before they need it.
        after_s: for how long the coordinator must have been silent, to the standby and to the witnesses.
    """

    standby: Did
    address: _Address
    after_s: Annotated[int, Field(ge=1, le=604800)]

    @property
    def key(self) -> PublicKey:
        """The standby's key."""
        return PublicKey.from_did(self.standby)

    @property
    def dial(self) -> str:
        """The address with the key that must answer there."""
        return f"{self.address}/p2p/{self.key.peer_id}"


class TermBegan(Wire):
    """The standby leads from here on; ``promises`` are the witnesses' signed Promises, by witness (``succession``)."""

    kind: Literal["term-began"] = "term-began"
    promises: Annotated[tuple[_PromiseText, ...], Field(min_length=1, max_length=PARTICIPANTS_MAX)]
