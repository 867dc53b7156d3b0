"""Logs of a study whose plan names a standby, made entry by entry: no network, no data, no rounds that are worked on.

After its start the coordinator opens a round and gives it later and later deadlines, which needs no blob. Logs of
different ``branch`` say different deadlines, so they fork where the round opens.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from standby_in_memory import FAILOVER, KEY
from study_in_memory import key_of, small_plan, table

from federation.rules.canonical import sha256_hex
from federation.rules.entries import (
    AgreementAdmitted,
    RoundOpened,
    RoundReopened,
    StudyPublished,
    StudyStarted,
    TermBegan,
    make_entry,
)
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, root
from federation.rules.replay import begin, replay, weights_of
from federation.rules.state import StudyState
from federation.rules.study import Agreement
from federation.rules.succession import Promise

SITES = ("ash", "birch", "cedar", "dogwood")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
COORDINATOR = key_of("coordinator")
KEYS = {site: key_of(f"institution {site}") for site in SITES}
PLAN = small_plan(table("validation", 10), sites=len(SITES), failover=FAILOVER)
ENVELOPE = PLAN.sign(COORDINATOR).to_bytes()
BLOB = sha256_hex(ENVELOPE)
EMPTY = begin(PLAN, plan_blob=BLOB, coordinator=COORDINATOR.public)


class TermLog:
    """A log that grows; ``fork`` goes on from its first entries in another way."""

    def __init__(self, entries: tuple[bytes, ...] = (), *, branch: int = 0) -> None:
        self.entries, self.branch = list(entries), branch
        self.state: StudyState = replay(EMPTY, self.entries)

    def add(self, body: Any, *, key: PrivateKey = COORDINATOR, term: int = 0, **fields: Any) -> "TermLog":
        """Append what ``body`` says, signed; it must keep the rules."""
        data = self.signed(body, key=key, term=term, **fields)
        before = [leaf_hash(each) for each in self.entries]
        self.state = replay(self.state, [data], before=before)
        self.entries.append(data)
        return self

    def signed(self, body: Any, *, key: PrivateKey = COORDINATOR, term: int = 0, **fields: Any) -> bytes:
        """An entry's bytes, whether or not it keeps the rules."""
        now = NOW + timedelta(seconds=len(self.entries))
        return make_entry(body, study=PLAN.study_id, now=now, term=term, **fields).sign(key).to_bytes()

    def start(self) -> "TermLog":
        """Publication, agreements, start."""
        self.add(StudyPublished(plan=BLOB, plan_hash=PLAN.plan_hash, minted=PLAN.reward.minted))
        for site, key in KEYS.items():
            agreement = Agreement(
                study=PLAN.study_id,
                plan_hash=PLAN.plan_hash,
                site=site,
                nominal_cohort=10,
                signed_at=format_instant(NOW),
            )
            self.add(AgreementAdmitted(envelope=agreement.sign(key).to_bytes().decode()), party=key.public)
        return self.add(StudyStarted(weights=weights_of(self.state), base_model="0" * 64))

    def go_on(self, count: int = 1) -> "TermLog":
        """Open the round, or put its deadline off, ``count`` times, by whoever leads."""
        for _ in range(count):
            deadline = format_instant(NOW + timedelta(hours=len(self.entries), minutes=self.branch))
            body: Any = RoundReopened(deadline=deadline)
            if self.state.round is None:
                model = self.state.model or ""
                body = RoundOpened(base_model=model, participants=self.state.active, deadline=deadline)
            term = self.state.term
            self.add(body, key=KEY if term else COORDINATOR, term=term, round_number=1)
        return self

    def fork(self, size: int, *, branch: int) -> "TermLog":
        """Another log with the same first ``size`` entries."""
        return TermLog(tuple(self.entries[:size]), branch=branch)

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` entries."""
        return root([leaf_hash(data) for data in self.entries[:size]])

    def promise(self, site: str, size: int | None = None, **changes: Any) -> str:
        """What a witness that cosigned the first ``size`` entries last signs."""
        tree = len(self.entries) if size is None else size
        fields: dict[str, Any] = {
            "study": PLAN.study_id,
            "term": 1,
            "standby": KEY.public.did,
            "size": tree,
            "root": self.root(tree).hex(),
        }
        return Promise(**{**fields, **changes}).sign(KEYS[site]).to_bytes().decode()

    def take_over(self, promises: tuple[str, ...] | None = None) -> "TermLog":
        """The standby's entry, by the promises of three witnesses if none are given."""
        made = ordered(self.promise(site) for site in SITES[:3]) if promises is None else promises
        return self.add(TermBegan(promises=made), key=KEY, term=1)


def ordered(promises: Any) -> tuple[str, ...]:
    """Promises in the order of who made them."""
    return tuple(sorted(promises, key=_signer))


def _signer(promise: str) -> str:
    return str(json.loads(promise)["signer"])
