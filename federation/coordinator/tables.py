"""What the coordinator keeps beside the log: signed plans, invitations, validation sets, markets."""

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel


class PublishedPlan(SQLModel, table=True):
    """A signed plan, as published. ``number`` orders the studies."""

    __tablename__ = "published_plan"
    number: int | None = Field(default=None, primary_key=True)
    study: str = Field(unique=True)
    envelope: bytes
    commitment: str


class IssuedInvitation(SQLModel, table=True):
    """A one-time token, as its hash; ``peer`` is the did that used it, and the only one that may use it again."""

    __tablename__ = "issued_invitation"
    token_hash: str = Field(primary_key=True)
    study: str = Field(index=True)
    site: str
    peer: str | None = None
    used_at: str | None = None


class ValidationSet(SQLModel, table=True):
    """The sponsor's validation rows with the salt of their commitment; they never leave through the network."""

    __tablename__ = "validation_set"
    commitment: str = Field(primary_key=True)
    salt: bytes
    data: bytes


class AnnouncedCall(SQLModel, table=True):
    """A market: the signed call and, once they exist, the signed list of sealed prices and the signed outcome.

    ``number`` orders the calls; ``hash`` names the call in every document of its market.
    """

    __tablename__ = "announced_call"
    number: int | None = Field(default=None, primary_key=True)
    hash: str = Field(unique=True)
    call: bytes
    sealed_list: bytes = b""
    outcome: bytes = b""


class ReceivedOffer(SQLModel, table=True):
    """What a candidate sent in: its sealed price (``sealed``) or its opening (``opened``), as it was signed."""

    __tablename__ = "received_offer"
    __table_args__ = (UniqueConstraint("call", "did", "kind"),)
    number: int | None = Field(default=None, primary_key=True)
    call: str
    did: str
    kind: str
    envelope: bytes
    received_at: str


class FollowedStudy(SQLModel, table=True):
    """The study that a standby follows: whose, where that coordinator is dialled, and whether witnesses were asked.

    ``asked`` is set before the first witness is asked for a promise, so that a standby that was stopped in between
    finishes what it began.
    """

    __tablename__ = "followed_study"

    study: str = Field(primary_key=True)
    coordinator: str
    address: str
    asked: bool = False
