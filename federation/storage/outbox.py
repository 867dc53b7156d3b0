"""Signed documents that wait for a study's log: a party's commands put them here, its running process brings them.

A document is kept, once, until it was taken; what the other side said against it stays beside it to be shown.
"""

from typing import Final

from sqlalchemy import Column, Engine, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel, col, select

from federation.errors import UnavailableError
from federation.rules.canonical import sha256_hex
from federation.storage.database import read, write

_PROBLEM_CHARACTERS_MAX: Final = 500


class OutgoingDocument(SQLModel, table=True):
    """One document, byte for byte as signed. ``taken`` when it is in the log; ``problem``: why it was refused last."""

    __tablename__ = "outgoing_document"
    __table_args__ = (UniqueConstraint("study", "sha256"),)

    number: int | None = Field(default=None, primary_key=True)
    study: str = Field(index=True)
    kind: str
    sha256: str
    document: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    taken: bool = False
    problem: str = ""


class Outbox:
    """The documents of one study in a party's database (which must hold the table :class:`OutgoingDocument`)."""

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine = engine
        self._study = study

    def put(self, kind: str, document: bytes) -> None:
        """Keep a document durably; one that is there already is not put a second time.

        Args:
            kind: what it is, for people (``pledge``, ``vote``, ...).
            document: a signed envelope.
        """
        name = sha256_hex(document)
        with write(self._engine) as session:
            known = select(OutgoingDocument).where(
                OutgoingDocument.study == self._study, OutgoingDocument.sha256 == name
            )
            if session.exec(known).first() is None:
                session.add(OutgoingDocument(study=self._study, kind=kind, sha256=name, document=document))

    def documents(self) -> list[OutgoingDocument]:
        """All, oldest first."""
        with read(self._engine) as session:
            rows = select(OutgoingDocument).where(OutgoingDocument.study == self._study)
            return list(session.exec(rows.order_by(col(OutgoingDocument.number))))

    def waiting(self) -> list[OutgoingDocument]:
        """Those that were not taken yet."""
        return [row for row in self.documents() if not row.taken]

    def mark(self, number: int | None, *, taken: bool = False, problem: str = "") -> None:
        """Note what became of a document."""
        with write(self._engine) as session:
            row = session.get(OutgoingDocument, number)
            if row is None:
                raise UnavailableError("The document is not there any more.", remedy="Run the command again.")
            if (row.taken, row.problem) != (taken, problem):
                row.taken, row.problem = taken, problem[:_PROBLEM_CHARACTERS_MAX]
                session.add(row)
