"""What a witness of consent logs must not forget. It lives in the witness's own database, beside its node's tables."""

from typing import Final

from sqlalchemy import Column, LargeBinary
from sqlmodel import Field, SQLModel


class WitnessedCheckpoint(SQLModel, table=True):
    """A checkpoint of another institution's consent log that this party is bound to: the signed note as it was shown.

    Written before the cosignature is made. ``origin`` names the log; the row of the largest size is what the next
    checkpoint must extend.
    """

    __tablename__ = "witnessed_checkpoint"

    origin: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


COSIGNING_TABLES: Final[tuple[type[SQLModel], ...]] = (WitnessedCheckpoint,)
