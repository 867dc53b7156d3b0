"""Whoever was erased from the consent registry is forgotten by the node as well: its record of rows used names people.

No list of the erased is kept anywhere, as that would remember them. The node looks instead: a name in its records of a
study that asks each person, which the registry does not know, was erased. What is left of a round is how many there
were, and the commitment to their rows (which an auditor can then no longer open for that round). Done again after
every erasure that the registry counts, so that a crash between the two only delays it.
"""

import json
import logging
from typing import Final

from sqlalchemy import Engine
from sqlmodel import select

from clients.storage import RoundUse, StudyMembership, recall, remember
from consent.registry import Registry
from consent.rules.record import Mechanism
from federation.rules.study import open_plan
from federation.storage.database import read, scrub, write

_DONE: Final = "erasures-followed"

logger = logging.getLogger(__name__)


def forget_erased(engine: Engine, registry: Registry) -> int:
    """Take the erased out of every record of rows used; how many mentions went.

    Args:
        engine: the node's database.
        registry: the institution's consents.

    Raises:
        UnavailableError: the database is in use, so that its files may still hold a name; it is tried again.
    """
    erasures = str(registry.erasures())
    with read(engine) as session:
        if erasures == (recall(session, _DONE) or "0"):
            return 0
    known = registry.heads().keys()
    gone = 0
    with write(engine) as session:
        for row in session.exec(select(RoundUse)):
            membership = session.get(StudyMembership, row.study)
            if membership is None or Mechanism(open_plan(membership.plan)[0].consent.kind).whole_source:
                continue  # nobody in particular is asked there: the names are not the registry's
            subjects = json.loads(row.subjects)
            left = [name for name in subjects if name in known]
            if len(left) < len(subjects):
                gone += len(subjects) - len(left)
                row.subjects = json.dumps(left)
                session.add(row)
    scrub(engine)
    with write(engine) as session:
        remember(session, _DONE, erasures)
    logger.info("erased people were forgotten: %d mentions", gone)
    return gone
