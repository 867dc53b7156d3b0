"""An institution's statement, from any folder that holds the study: a coordinator's, a node's, or an exported one.

The statement is computed anew: the log is replayed, values and payments follow from the opened value tables, and the
settlement's place in the tree under the newest checkpoint is proved. Nothing is stored, nothing is sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from federation.errors import OperatorError
from federation.export.folding import FoldedLog, Settlement, fold, open_newest
from federation.rules import audit
from federation.rules.aggregation import rule_of
from federation.rules.checkpoint import SignedCheckpoint, finality_quorum
from federation.rules.documents import ValueTable
from federation.rules.merkle import inclusion_proof, verify_inclusion
from federation.rules.panel_statements import PanelView, by_panel
from federation.rules.state import StudyState
from federation.rules.statements import Statement, statement, whole_of, with_fee, with_sampling
from federation.rules.study import open_plan
from federation.rules.value_sample import redraw

from .source import open_source

_HASH_SHOWN: Final = 16
_HOW_TO_PROVE: Final = "To prove every figure, and who signed: `accord log verify` on an export, with --key."


@dataclass(frozen=True, slots=True)
class StudyStatement:
    """A statement as data (``--json``) and as text."""

    data: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class _Proof:
    """The settlement's entry in the tree of a signed checkpoint: the path is from its leaf to the root."""

    index: int
    path: tuple[bytes, ...]
    signed: SignedCheckpoint


def statement_of(folder: Path, *, site: str, study: str | None) -> StudyStatement:
    """What ``site`` earned, why, and where the log proves it.

    Args:
        folder: a coordinator's folder, a node's folder, or an exported study.
        site: the institution's short name.
        study: which study; None takes the only or the newest one.

    Raises:
        OperatorError: no such folder, study or site, or the study is not settled.
        PeerError: the log, a table, the payments or the checkpoint do not verify.
        UnavailableError: a part has not arrived in this folder yet.
    """
    source = open_source(folder, study)
    plan, envelope = open_plan(source.plan)
    folded = fold(plan, source.plan, envelope.signer, source.entries)
    state, settlement = folded.state, folded.settlement
    if settlement is None:
        raise OperatorError(
            f"{state.study} is not settled: {len(state.closed)} of {state.rounds.count} rounds are closed"
            f" as far as {folder} knows.",
            remedy="Statements exist once the study is settled; `status` says who is awaited.",
        )
    proof = _prove(folded, settlement, source.newest)
    tables = audit.check_settlement(settlement.before, settlement.body, source.blobs)
    written = _statement(folded.state, settlement, tables, site)
    data = {
        **written.to_json(),
        "rounds": _rounds(written, state),
        **_cluster(state, site),
        "plan_hash": plan.plan_hash,
        "aggregation": {"rule": plan.aggregation.rule, "linear": rule_of(plan).linear},
        "log": _log_data(folded, settlement, proof),
    }
    return StudyStatement(data=data, text=_text(data))


def _prove(folded: FoldedLog, settlement: Settlement, newest: tuple[int, bytes] | None) -> _Proof:
    """The settlement's inclusion under the newest checkpoint, verified."""
    signed = open_newest(folded, newest, settlement.index)
    head = signed.checkpoint
    leaves = folded.leaves[: head.size]
    path = inclusion_proof(leaves, settlement.index)
    verify_inclusion(leaf=leaves[settlement.index], index=settlement.index, size=head.size, proof=path, root=head.root)
    return _Proof(index=settlement.index, path=path, signed=signed)


def _statement(state: StudyState, settlement: Settlement, tables: Mapping[int, ValueTable], site: str) -> Statement:
    values: dict[int, dict[str, Fraction]] = {}
    method = state.plan.valuation.method
    for number, table in tables.items():
        values[number] = {state.site(did): value for did, value in audit.round_values(state, table).items()}
    reward, errors = state.plan.reward, audit.standard_errors(settlement.body.payments)
    worth = audit.values(state, list(tables.values()))
    payments = audit.shares_paid(state, worth, errors)
    written = statement(
        study=state.study,
        site=site,
        account=f"institution:{site}",
        round_values=values,
        payments=payments,
        minimum_share=reward.minimum_share,
        method=method,
        errors={state.site(did): Fraction(error, audit.UTILITY_UNIT) for did, error in errors.items()},
        z=reward.z,
    )
    written = _told_sampling(written, state, tables, site)
    if state.plan.valuation.panel is not None:
        view = _panel_view(state, site, written.value)
        written = by_panel(written, view, payments, reward.minimum_share)
    fees = {state.site(did): fee for did, fee in (reward.fees or {}).items()}
    paid = {each.site: each.fee or 0 for each in state.payments}
    return with_fee(written, paid[site], fees[site]) if fees else written


def _told_sampling(written: Statement, state: StudyState, tables: Mapping[int, ValueTable], site: str) -> Statement:
    """The statement with how sure its estimates are, where rounds of the site were sampled."""
    did = next(did for did in state.weights if state.site(did) == site)
    widths = {
        number: Fraction(redraw(table, state.plan.valuation).values.half_widths[table.players.index(did)])
        for number, table in tables.items()
        if table.seed is not None and did in table.players
    }
    sampling = state.plan.valuation.sampling
    if sampling is None or not widths:
        return written
    return with_sampling(
        written, {number: width / audit.UTILITY_UNIT for number, width in widths.items()}, sampling.confidence
    )


def _panel_view(state: StudyState, site: str, set_value: Fraction) -> PanelView:
    """What the panel said of a site."""
    terms, panel, found = state.plan.valuation.panel, state.panel, audit.panel_scores(state)
    if terms is None or panel is None:
        raise ValueError("the study has no panel")
    did = next(did for did in state.weights if state.site(did) == site)
    shown = {member: dict(zip(each.players, each.values, strict=True)) for member, each in panel.shown.items()}
    return PanelView(
        scores={
            state.site(member): Fraction(numbers[did], audit.UTILITY_UNIT)
            for member, numbers in shown.items()
            if member != did
        },
        absent=tuple(sorted(state.site(member) for member in set(panel.members) - set(shown))),
        quorum=terms.quorum,
        counted=len(shown) >= terms.quorum,
        value=found.values[did],
        whole=found.wholes[did],
        set_value=set_value,
    )


def _rounds(written: Statement, state: StudyState) -> list[dict[str, Any]]:
    """The statement's rounds, each with the reason where nothing of the site is in the model."""
    did = next(did for did in state.weights if state.site(did) == written.site)
    reasons = {done.number: done.refused.get(did, "") for done in state.closed}
    rows: list[dict[str, Any]] = written.to_json()["rounds"]
    return [row | {"reason": "" if row["admitted"] else reasons[row["round"]] or "took no part"} for row in rows]


def _cluster(state: StudyState, site: str) -> dict[str, Any]:
    """With whom the site counts as one institution, and whether as copies; nothing where it stands alone."""
    for group in state.overlap.clusters:
        sites = sorted(state.site(did) for did in group)
        if site in sites:
            copied = any(site in {state.site(did) for did in copies} for copies in state.overlap.copies)
            weights = {state.site(did): state.weights[did] for did in group}
            part = Fraction(weights[site], sum(weights.values()))
            return {"cluster": {"sites": sites, "copies": copied, "share": float(part), "share_exact": str(part)}}
    return {}


def _log_data(folded: FoldedLog, settlement: Settlement, proof: _Proof) -> dict[str, Any]:
    entry, head = folded.entries[proof.index], proof.signed.checkpoint
    witnesses = len(folded.witnesses[-1])
    return {
        "key": proof.signed.signer.did,
        "origin": head.origin,
        "entry_index": settlement.index,
        "entry_id": entry.id,
        "entry_time": entry.time,
        "leaf_hash": folded.leaves[proof.index].hex(),
        "inclusion_proof": [item.hex() for item in proof.path],
        "size": head.size,
        "root": head.root.hex(),
        "checkpoint": proof.signed.to_bytes().decode("utf-8"),
        "cosignatures": len(proof.signed.cosignatures),
        "witnesses": witnesses,
        "quorum": finality_quorum(witnesses),
    }


def _text(data: Mapping[str, Any]) -> str:
    log = data["log"]
    rounds = [
        f"  round {row['round']:<4} " + (f"{row['value']:+.6f}" if row["admitted"] else f"nothing ({row['reason']})")
        for row in data["rounds"]
    ]
    credits_ = data["reward_microcredits"] / 1_000_000
    cosigned = (
        f"cosigned by {log['cosignatures']} of {log['witnesses']} institutions ({log['quorum']} make it final)"
        if log["cosignatures"]
        else "the cosignatures are with the coordinator and in its export"
    )
    aggregation = data["aggregation"]
    rerun = f"  rule       {aggregation['rule']}, which is not linear: it was run anew for every group of sites"
    bound, panel = data["lower_bound"], data.get("panel")
    share = f"{data['share']:.2%} of {whole_of(data['method'], bounded=bound is not None, panel=panel is not None)}"
    worth = [f"  study      {data['value']:+.6f}   {share}"]
    if bound is not None:
        worth = [f"  study      {data['value']:+.6f}", f"  sure       {bound['bound']:+.6f}   {share}"]
    if panel is not None:
        worth = [f"  set        {panel['value_on_the_sponsors_set']['nats']:+.6f}   (nobody is paid by it)"]
        worth += [f"  scored by  {name}: {number['nats']:+.6f}" for name, number in panel["scores"].items()]
        worth += [f"  panel      {data['value']:+.6f}   {share}"]
    return "\n".join(
        [
            f"Statement for {data['site']} in {data['study']}",
            "",
            data["sentence"],
            "",
            "Value by round (nats of log loss on the sponsor's validation set; more is better):",
            *rounds,
            *worth,
            *([] if aggregation["linear"] else [rerun, "             (an update of zero is not worth exactly zero)"]),
            *_cluster_line(data),
            f"  reward     {credits_:,.6f} credits, on the account {data['account']}",
            *(
                [f"  fee        {data['fee_microcredits'] / 1_000_000:,.6f} credits"]
                if "fee_microcredits" in data
                else []
            ),
            "",
            f"Where it stands: entry {log['entry_index']} of the log {log['origin']}, written {log['entry_time']}.",
            f"  checkpoint  {log['size']} entries, root {log['root'][:_HASH_SHOWN]}..., {cosigned}",
            f"  inclusion   proved by {len(log['inclusion_proof'])} hashes (all of them with --json)",
            f"  signed by   {log['key']}",
            "",
            "Values and payments were recomputed from the value tables just now. " + _HOW_TO_PROVE,
        ]
    )


def _cluster_line(data: Mapping[str, Any]) -> list[str]:
    cluster = data.get("cluster")
    if cluster is None:
        return []
    others = ", ".join(each for each in cluster["sites"] if each != data["site"])
    return [f"  counted    as one institution with {others}"]
