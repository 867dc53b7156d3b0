"""What a log claims about blobs: aggregates of rounds, value tables, values and payments, recomputed.

A party that holds the log and the blobs gets the same model bit for bit and the same payments, or a proof that somebody
lied. Utilities and standard errors are checked separately (``learning.evaluation``, ``learning.uncertainty``), as that
needs the validation rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np

from federation.errors import PeerError
from federation.rules.admission import check_arrays, parameter_count
from federation.rules.aggregation import Rule, aggregate, norm_within, rule_of
from federation.rules.canonical import sha256_hex
from federation.rules.clusters import quotient
from federation.rules.documents import TABLE_BYTES_MAX, ValueTable
from federation.rules.entries import Payment, StudySettled
from federation.rules.panel import Scored, pay_shares, score
from federation.rules.payouts import fees_due
from federation.rules.rewards import Payments, lower_bounds, pay
from federation.rules.state import ClosedRound, StudyState
from federation.rules.study import read
from federation.rules.terms import Valuation
from federation.rules.value_sample import is_sampled, redraw, seed_of, values_of
from federation.rules.vectors import pack_vector, unpack_vector

Vector = np.ndarray[Any, np.dtype[np.int64]]
Blobs = Callable[[str], bytes]
UTILITY_UNIT: Final = 2**40
UTILITY_TOLERANCE: Final = Fraction(1, 1 << 28)
"""How far a verifier's own utility may be from the committed one, in nats."""


def round_vectors(done: ClosedRound, state: StudyState, blobs: Blobs) -> tuple[Vector, dict[str, Vector]]:
    """The base model and the admitted updates of a closed round, each int64 ``[P]``, checked.

    Raises:
        PeerError: a blob is missing, altered, or breaks an admission rule.
    """
    encoding, length = state.plan.aggregation.encoding, parameter_count(state.plan)
    base = unpack_vector(_blob(done.base_model, blobs), encoding, length=length)
    updates = {}
    for did, update in sorted(done.admitted.items()):
        packed = b"".join(_blob(name, blobs) for name in update.chunks)
        updates[did] = check_arrays(update, packed, state.plan)
    return base, updates


def round_rule(done: ClosedRound, state: StudyState, blobs: Blobs) -> Rule:
    """How the round was aggregated: the plan's rule, with the reference update that its opening committed to.

    Raises:
        PeerError: the reference is missing, altered, or longer than the plan lets an update be.
    """
    if done.reference is None:
        return rule_of(state.plan)
    anchor = unpack_vector(
        _blob(done.reference, blobs), state.plan.aggregation.encoding, length=parameter_count(state.plan)
    )
    if not norm_within(anchor, state.plan.aggregation.norm_bound):
        raise PeerError(
            f"Round {done.number}: the sponsor's reference update is above the plan's norm bound.",
            remedy="Keep the log as evidence: the coordinator committed to it before the round.",
        )
    return rule_of(state.plan, anchor)


def check_round(done: ClosedRound, state: StudyState, blobs: Blobs) -> None:
    """Recompute a round's aggregate.

    Raises:
        PeerError: the logged model is not the exact aggregate of the admitted updates.
    """
    base, updates = round_vectors(done, state, blobs)
    model = aggregate(base, updates, state.weights, round_rule(done, state, blobs))
    result = sha256_hex(pack_vector(model, state.plan.aggregation.encoding))
    if result != done.model:
        raise PeerError(
            f"Round {done.number}: the logged model {done.model[:12]} is not its updates' aggregate ({result[:12]}).",
            remedy="Keep the log and the blobs as evidence: the coordinator signed a false aggregate.",
        )


def open_table(done: ClosedRound, state: StudyState, data: bytes) -> ValueTable:
    """Read the value table that a closed round committed to.

    Raises:
        PeerError: other bytes than were committed, or a table of another round or of other players.
    """
    table = read_table(
        data,
        name=done.value_table,
        study=state.study,
        number=done.number,
        players=done.admitted,
        valuation=state.plan.valuation,
    )
    if table.seed not in (None, seed_of(state.study, done.number, done.commitments)):
        raise PeerError(
            f"the value table of round {done.number} is of another sample than the log asks for.",
            remedy="Keep the log as evidence: the coordinator chose its own sample.",
        )
    return table


def read_table(
    data: bytes, *, name: str, study: str, number: int, players: Collection[str], valuation: Valuation
) -> ValueTable:
    """As :func:`open_table`, of a round that is known by what its closing entry says; its seed is not checked.

    Args:
        data: the table's bytes.
        name: the hash that was committed.
        study: the study's id.
        number: the round's.
        players: did of every admitted party.
        valuation: the plan's.

    Raises:
        PeerError: as :func:`open_table`.
    """
    where = f"the value table of round {number}"
    if sha256_hex(data) != name:
        raise PeerError(f"{where} is not the one that was committed.", remedy="Keep both as evidence.")
    table = read(ValueTable, data, max_bytes=TABLE_BYTES_MAX)
    if table.study != study or table.round != number or table.players != tuple(sorted(players)):
        raise PeerError(f"{where} belongs to another round or to other players.", remedy="Keep it as evidence.")
    if is_sampled(len(table.players)):
        redraw(table, valuation)
    elif table.seed is not None or len(table.utilities) != 2 ** len(table.players):
        raise PeerError(f"{where} does not have one utility for each coalition.", remedy="Keep it as evidence.")
    return table


def same_utility(committed: int, recomputed: int) -> bool:
    """Whether two utilities (times 2^40) are within :data:`UTILITY_TOLERANCE` of each other."""
    return abs(committed - recomputed) <= UTILITY_TOLERANCE * UTILITY_UNIT


def values(state: StudyState, tables: Sequence[ValueTable]) -> dict[str, Fraction]:
    """Each party's value over the study, exact, in units of utility: what it is paid by.

    The sum of its values of the rounds, by the plan's ``valuation.method`` from the same tables whichever it is.
    Institutions that count as one are one player, and share its value by their weights (``clusters``). Where the plan
    has a panel: what that found.

    Raises:
        PeerError: the tables do not telescope: a round does not start where the one before ended.
    """
    found = set_values(state, tables)
    return found if state.plan.valuation.panel is None else panel_scores(state).values


def panel_scores(state: StudyState) -> Scored:
    """What the panel of a study found, from the scores that were shown.

    Whoever has no admitted update is scored zero by everybody: what its scores say is noise.

    Raises:
        ValueError: the plan has no panel (a mistake of the caller).
    """
    panel = state.plan.valuation.panel
    if panel is None:
        raise ValueError("the plan has no panel")
    shown = {} if state.panel is None else state.panel.shown
    took_part = {did for done in state.closed for did in done.admitted}
    tables = {
        member: {did: value if did in took_part else 0 for did, value in zip(each.players, each.values, strict=True)}
        for member, each in shown.items()
    }
    return score(tuple(state.weights), tables, state.weights, panel)


def set_values(state: StudyState, tables: Sequence[ValueTable]) -> dict[str, Fraction]:
    """Each party's value over the study on the sponsor's set, whether or not it is paid by that.

    Raises:
        PeerError: the tables do not telescope: a round does not start where the one before ended.
    """
    result = dict.fromkeys(sorted(state.weights), Fraction(0))
    for before, after in pairwise(tables):
        if before.utilities[-1] != after.utilities[0]:
            raise PeerError(
                f"The value tables of rounds {before.round} and {after.round} do not join.",
                remedy="Keep them as evidence: one model cannot have two utilities.",
            )
    for table in tables:
        for did, value in round_values(state, table).items():
            result[did] += value
    return result


def round_values(state: StudyState, table: ValueTable) -> dict[str, Fraction]:
    """What each party's update of one round was worth, exact, in units of utility; clusters are valued as one.

    Where the table is a sample: its estimates, which are exact figures too. No plan samples and compares people.
    """
    worth: Sequence[Fraction]
    if state.overlap.clusters:
        game = quotient(table.players, state.overlap.clusters, state.weights)
        worth = game.values(table.utilities, state.plan.valuation.method)
    else:
        worth = values_of(table, state.plan.valuation)
    return {did: value / UTILITY_UNIT for did, value in zip(table.players, worth, strict=True)}


def payable(
    state: StudyState, worth: Mapping[str, Fraction], errors: Mapping[str, int] | None = None
) -> dict[str, Fraction]:
    """What parties are paid by: their values, or where the plan says so, their lower bounds.

    Args:
        state: the study.
        worth: did -> value in nats, as :func:`values` gives them.
        errors: did -> standard error of the value in 2^-40 nats; every party of such a plan, nobody of another.

    Raises:
        PeerError: standard errors are missing, or stand where the plan asks for none.
    """
    z = state.plan.reward.z
    if set(errors or {}) != (set() if z is None else set(worth)):
        raise PeerError(
            "The settlement's standard errors are not those of the institutions that its plan pays by lower bounds.",
            remedy="Keep the log as evidence: the coordinator signed a false settlement.",
        )
    if z is None or errors is None:
        return dict(worth)
    return lower_bounds(worth, {did: Fraction(error, UTILITY_UNIT) for did, error in errors.items()}, z)


def shares_paid(state: StudyState, worth: Mapping[str, Fraction], errors: Mapping[str, int] | None = None) -> Payments:
    """How the pool is shared out, by site: by :func:`payable`, or by the panel's shares.

    Args:
        state: the study.
        worth: did -> value in nats, as :func:`values` gives them.
        errors: as for :func:`payable`.

    Raises:
        PeerError: as :func:`payable`.
    """
    reward = state.plan.reward
    amounts = payable(state, worth, errors)
    if state.plan.valuation.panel is None:
        by_site = {state.site(did): amount for did, amount in amounts.items()}
        return pay(by_site, reward.pool_microcredits, reward.minimum_share)
    shares = {state.site(did): share for did, share in panel_scores(state).shares.items()}
    return pay_shares(shares, reward.pool_microcredits, reward.minimum_share)


def settlement(
    state: StudyState, tables: Sequence[ValueTable], errors: Mapping[str, int] | None = None
) -> StudySettled:
    """What the settlement must say, from the tables and the standard errors (see :func:`payable`) alone."""
    worth = values(state, tables)
    paid = shares_paid(state, worth, errors)
    fees = fees_due(state.plan.reward.fees, state.closed)
    payments = tuple(
        Payment(
            party=did,
            site=state.site(did),
            value=str(value),
            reward=paid.rewards[state.site(did)],
            fee=fees.get(did),
            standard_error=(errors or {}).get(did),
        )
        for did, value in worth.items()
    )
    return StudySettled(
        tables=tuple(done.value_table for done in state.closed),
        payments=payments,
        burned=state.plan.reward.minted - sum(payment.total for payment in payments),
    )


def standard_errors(payments: Sequence[Payment]) -> dict[str, int]:
    """The standard errors that a settlement commits to: did -> 2^-40 nats; empty where values are paid."""
    return {payment.party: payment.standard_error for payment in payments if payment.standard_error is not None}


def check_settlement(before: StudyState, settled: StudySettled, blobs: Blobs) -> Mapping[int, ValueTable]:
    """Recompute values and payments of a settlement; the tables by round.

    Standard errors are taken as they were committed: to recompute them takes the validation rows.

    Args:
        before: the state that the settlement was appended to.
        settled: the entry's body.
        blobs: the opened value tables.

    Raises:
        PeerError: a table, a value or a payment is not what follows from the log.
    """
    tables = [open_table(done, before, _blob(done.value_table, blobs)) for done in before.closed]
    if settlement(before, tables, standard_errors(settled.payments)) != settled:
        raise PeerError(
            "The settlement's values or payments do not follow from the value tables.",
            remedy="Keep the log as evidence: the coordinator signed a false settlement.",
        )
    return {table.round: table for table in tables}


def _blob(name: str, blobs: Blobs) -> bytes:
    data = blobs(name)
    if sha256_hex(data) != name:
        raise PeerError(f"The blob {name} does not have the bytes of its name.", remedy="Fetch it again.")
    return data
