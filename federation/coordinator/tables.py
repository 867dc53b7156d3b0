"""What the coordinator keeps beside the log: signed plans, invitations, the sponsor's validation sets."""

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
