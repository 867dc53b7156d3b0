"""A node brings what the institution signed for a study's log: its pledge, proposals, votes, accusations.

Commands put the documents into the outbox; this takes them to the coordinator, again and again until they are taken.
A fork that the coordinator signed becomes an accusation by itself, where the plan has stakes.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from federation.errors import AccordError, UnavailableError
from federation.rules.documents import open_signed
from federation.rules.equivocation import Evidence
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.pledges import Accusation, SplitView
from federation.rules.study import StudyPlan
from federation.storage.outbox import Outbox

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 10


class Submitting:
    """The outbox of one institution in one study.

    Args:
        outbox: what waits.
        plan: the study's plan.
        key: the institution's key, for accusations.
        bring: takes a document to the coordinator; raises what it answers.
        clock: paces documents that were refused, and dates accusations.
    """

    def __init__(
        self,
        outbox: Outbox,
        plan: StudyPlan,
        key: PrivateKey,
        *,
        bring: Callable[[bytes], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._outbox = outbox
        self._plan = plan
        self._key = key
        self._bring = bring
        self._clock = clock
        self._tried: dict[int | None, datetime] = {}

    def bring_all(self) -> None:
        """Bring what waits; a document that was refused is tried again after a while, as the log may allow it then."""
        now = self._clock()
        for row in self._outbox.waiting():
            tried = self._tried.get(row.number)
            if tried is not None and (now - tried).total_seconds() < _AGAIN_S:
                continue
            try:
                self._bring(row.document)
            except UnavailableError as error:
                logger.info("a %s waits: %s", row.kind, error.message)
                self._tried[row.number] = now
            except AccordError as error:
                if row.problem != error.message:
                    logger.warning("the coordinator does not take a %s: %s", row.kind, error.message)
                self._outbox.mark(row.number, problem=error.message)
                self._tried[row.number] = now
            else:
                self._outbox.mark(row.number, taken=True)

    def problems(self) -> dict[str, str]:
        """Kind of document -> why the coordinator does not take it (yet)."""
        return {row.kind: row.problem for row in self._outbox.waiting() if row.problem}

    def accusations(self) -> list[Accusation]:
        """What this institution holds against parties, whether or not the coordinator took it."""
        kinds = (row.document for row in self._outbox.documents() if row.kind == "accusation")
        return [open_signed(Accusation, document, signer=self._key.public)[0] for document in kinds]

    def accuse(self, evidence: Evidence) -> None:
        """Hold a fork of the study's log against the coordinator's stake."""
        if self._plan.stake is None:
            return
        case = SplitView(evidence=evidence.to_bytes().decode("utf-8"))
        if any(each.case == case for each in self.accusations()):
            return
        accusation = Accusation(
            study=self._plan.study_id, accused=evidence.signer, case=case, signed_at=format_instant(self._clock())
        )
        self._outbox.put("accusation", accusation.sign(self._key).to_bytes())
