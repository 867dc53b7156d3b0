"""The officer's own tables, beside the other tables of the pages."""

from typing import Final

from sqlmodel import Field, SQLModel


class MaterialVersion(SQLModel, table=True):
    """A version of a notice after which a yes to an earlier one counts no longer.

    The mark is written before the version is published: a crash in between asks people once too often, never once too
    seldom.
    """

    __tablename__ = "web_material_version"

    request: str = Field(primary_key=True)
    version: int = Field(primary_key=True)


class OfficerAction(SQLModel, table=True):
    """One action of an officer; ``detail`` is canonical JSON, an object of texts; ``seal`` covers the row and the last.

    Rows are only added (:mod:`consent.web.officer_trail`).
    """

    __tablename__ = "web_officer_action"

    number: int = Field(primary_key=True)
    at: str
    act: str
    detail: str
    seal: str


OFFICER_TABLES: Final[tuple[type[SQLModel], ...]] = (MaterialVersion, OfficerAction)
