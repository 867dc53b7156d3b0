"""A party's own view of one study: its key, the verified log as its folder holds it, and its outbox.

For commands that sign something for a study's log, of a coordinator as of a node. They only put it into the outbox; the
running process brings it.
"""

from dataclasses import dataclass
from pathlib import Path

from federation.errors import OperatorError
from federation.export.folding import FoldedLog, fold
from federation.identity import load_key
from federation.rules.documents import Signed
from federation.rules.keys import PrivateKey
from federation.rules.stakes import party_name
from federation.rules.state import StudyState
from federation.rules.study import open_plan
from federation.settings import PartyFolder
from federation.storage.database import open_database
from federation.storage.outbox import Outbox, OutgoingDocument

from .source import StudySource, open_source


@dataclass(frozen=True, slots=True)
class PartyInStudy:
    """Who signs, what the log says as far as this folder knows, and where documents wait."""

    key: PrivateKey
    source: StudySource
    folded: FoldedLog
    outbox: Outbox

    @property
    def state(self) -> StudyState:
        """What the log says."""
        return self.folded.state

    def sign(self, kind: str, document: Signed) -> bytes:
        """Sign a document and put it into the outbox; its bytes."""
        data = document.sign(self.key).to_bytes()
        self.outbox.put(kind, data)
        return data


def read_study(folder: Path, study: str | None) -> tuple[StudySource, FoldedLog]:
    """A study's verified log from any folder that holds it.

    Raises:
        OperatorError: no such folder or study, or a node that has not seen the study's log yet.
        PeerError: the log does not verify.
    """
    source = open_source(folder, study)
    plan, envelope = open_plan(source.plan)
    return source, fold(plan, source.plan, envelope.signer, source.entries)


def open_party(folder: Path, study: str | None) -> PartyInStudy:
    """A party's folder, for signing.

    Raises:
        OperatorError: as :func:`read_study`; or an exported study, which has no key.
        PeerError: the log does not verify.
    """
    files = PartyFolder(folder)
    if not files.settings.exists():
        raise OperatorError(
            f"{folder} is not a party's folder: nobody could sign.",
            remedy="Give the folder of a coordinator or of an institution's node.",
        )
    source, folded = read_study(folder, study)
    engine = open_database(files.database, OutgoingDocument)
    return PartyInStudy(
        key=load_key(files.key), source=source, folded=folded, outbox=Outbox(engine, folded.state.study)
    )


def name_of(state: StudyState, did: str) -> str:
    """A party's short name, for people: an institution's, or ``coordinator``."""
    return party_name(state, did).partition("/")[0]
