"""How the lead of a study passes to the standby that its plan names: promises of witnesses, and the entry they allow.

As in Paxos (Lamport 1998, "The part-time parliament", section 2) the witnesses are the acceptors. A witness that has
not heard the coordinator for the plan's time signs a :class:`Promise`: from now on it cosigns nothing of a lower term,
and this is the last tree that it cosigned. A finality quorum of promises lets the standby append ``term-began``. The
log up to there must extend every tree that they name. Any tree that was final shares an honest witness with the quorum,
so it is a part of what goes on, and none of the old term can become final afterwards.

Here is what everybody checks. When a witness promises, and that it keeps its word, is in ``clients.fencing``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field

from federation.errors import PeerError
from federation.rules.checkpoint import SIZE_MAX, finality_quorum
from federation.rules.documents import Hash, Signed, StudyId, open_signed
from federation.rules.entries import Entry, open_entry, open_signed_entry
from federation.rules.failover import TermBegan
from federation.rules.keys import PublicKey
from federation.rules.merkle import root
from federation.rules.state import StudyState, require
from federation.rules.study import StudyPlan
from federation.rules.wire import Did

STANDBY_TERM: Final = 1
"""The term of the plan's one standby; the coordinator's is 0."""


class Promise(Signed):
    """A witness's word that it cosigns nothing below ``term`` any more, and the last tree that it cosigned.

    ``size`` and ``root`` are that tree's (0 and the root of nothing: it has cosigned none).
    """

    version: Literal[1] = 1
    study: StudyId
    term: Annotated[int, Field(ge=1, le=STANDBY_TERM)]
    standby: Did
    size: Annotated[int, Field(ge=0, le=SIZE_MAX)]
    root: Hash


def signers_of(plan: StudyPlan, coordinator: PublicKey) -> tuple[PublicKey, ...]:
    """Who may have signed something of the study's log: the coordinator, and the standby if the plan names one."""
    return (coordinator,) if plan.failover is None else (coordinator, plan.failover.key)


def open_promise(data: bytes, *, study: str, standby: str, witness: PublicKey | None = None) -> tuple[Promise, str]:
    """Verify a promise to ``standby`` in ``study``; the promise, and the did of who made it.

    Raises:
        PeerError: the signature is wrong, or it is another one's, or made to another standby or for another study.
    """
    promise, envelope = open_signed(Promise, data, signer=witness)
    require(promise.study == study and promise.standby == standby, "the promise is for another study or standby")
    return promise, envelope.signer.did


def term_began(state: StudyState, entry: Entry, body: TermBegan) -> StudyState:
    """The rule for ``term-began``: who may take over, once, and with whose promises.

    Raises:
        PeerError: the plan has no standby, it has taken over already, the study has not started, or the promises are
            not those of a finality quorum of its witnesses.
    """
    failover = state.plan.failover
    require(entry.round is None and entry.party is None, "a term has neither round nor party")
    if failover is None:
        raise PeerError("the plan names no standby.", remedy="Keep the log as evidence.")
    require(state.began is None, "the standby has taken over already")
    require(entry.term == STANDBY_TERM, f"its term is {entry.term}, not {STANDBY_TERM}")
    require(bool(state.weights), "the study has not started")
    made = [open_promise(text.encode("utf-8"), study=state.study, standby=failover.standby) for text in body.promises]
    dids = [did for _, did in made]
    require(dids == sorted(set(dids)), "its promises are not by different witnesses, in order")
    require(set(dids) <= set(state.agreements), "a promise is by somebody who is no witness")
    quorum = finality_quorum(len(state.witnesses))
    require(len(dids) >= quorum, f"it has {len(dids)} promises where {quorum} are needed")
    return replace(state, began=state.size)


def open_next(state: StudyState, data: bytes, leaves: Sequence[bytes]) -> Entry:
    """Verify and read what is to be the next entry after ``state``: by its leader, or by the standby that takes over.

    Args:
        state: what the log says before the entry.
        data: the entry as received.
        leaves: the leaf hashes of the log before the entry, ``state.size`` of them.

    Raises:
        PeerError: the signature or the form is wrong, or the log before ``term-began`` lacks a tree that one of its
            promises names. Every other rule is ``replay.apply``'s.
    """
    failover = state.plan.failover
    if failover is None or state.began is not None:
        return open_entry(data, signer=state.leader)
    entry, signer = open_signed_entry(data, signers=signers_of(state.plan, state.coordinator))
    begins = isinstance(entry.body, TermBegan)
    by = failover.key if begins else state.leader
    require(signer == by, f"entry {state.size} ({entry.body.kind}) is signed by {signer.did}, not by {by.did}")
    if isinstance(entry.body, TermBegan):
        check_trees(entry.body, leaves)
    return entry


def check_trees(body: TermBegan, leaves: Sequence[bytes]) -> None:
    """Check that the log before ``body`` extends every tree that its promises name.

    Args:
        body: the entry's body; :func:`term_began` checks who made its promises.
        leaves: the leaf hashes of the log before it.

    Raises:
        PeerError: it does not.
    """
    for text in body.promises:
        promise, _ = open_signed(Promise, text.encode("utf-8"))
        require(
            promise.size <= len(leaves) and root(leaves[: promise.size]).hex() == promise.root,
            f"the log before it does not extend the tree of {promise.size} entries that a witness cosigned",
        )


def proves_takeover(state: StudyState, data: bytes) -> bool:
    """Whether ``data`` is a ``term-began`` of this study with the promises it needs, whatever the log before it holds.

    It is what stops a coordinator that was taken for gone: its own log need not fit.

    Args:
        state: the coordinator's own fold.
        data: the entry as received.

    Raises:
        PeerError: it is not; the message says why.
    """
    failover = state.plan.failover
    if failover is None:
        return False
    entry = open_entry(data, signer=failover.key)
    require(isinstance(entry.body, TermBegan) and entry.study == state.study, "the entry is another one")
    if isinstance(entry.body, TermBegan):
        term_began(state, entry, entry.body)
    return True
