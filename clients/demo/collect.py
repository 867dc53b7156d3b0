"""What the report says, read off the coordinator's log, the blobs, and each node's own folder.

Counts of people come from the nodes' own databases, after the study: they were never on the wire, in the log or in the
export. Comparisons are computed here, outside the network, on data that is public.
"""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import Any

from sqlmodel import select

from clients.demo.comparisons import compare
from clients.demo.run import Demo
from clients.folder import NodeFolder, open_node_folder
from clients.participation import stops
from clients.privacy.budget import BudgetLedger
from clients.storage import RoundUse
from federation.coordinator.folder import CoordinatorFolder
from federation.coordinator.history import StudyHistory, system_clock
from federation.learning.evaluation import auc
from federation.learning.models import logits
from federation.rules import accounting, audit
from federation.rules.admission import parameter_count
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import from_fixed
from federation.rules.keys import PublicKey
from federation.rules.state import StudyState
from federation.rules.validation import read_validation
from federation.rules.vectors import unpack_vector
from federation.storage.database import read


def collect(demo: Demo, seconds: Mapping[str, float]) -> dict[str, Any]:
    """The report's dictionary (its fields are listed in ``clients.demo.report``)."""
    opened = demo.opened()
    history = opened.history(None)
    state = history.state
    nodes = {site: open_node_folder(demo.node(site)) for site in demo.study.sites}
    budgets = {site: BudgetLedger(node.engine, clock=system_clock) for site, node in nodes.items()}
    uses = {site: _uses(node, state.study) for site, node in nodes.items()}
    _, rows = opened.validation(state.plan.validation.commitment)
    validation = read_validation(state.plan, rows)
    words = {site: demo.words(site) for site in demo.study.sites}
    consented = {site: {name for name, word in words[site].items() if word == "grant"} for site in words}
    last = _parameters(state, state.model or "", opened)
    comparisons = compare(demo.study, state.plan, demo.split, consented, last, seed=demo.options.seed)
    tables = [audit.open_table(done, state, opened.blobs.get(done.value_table)) for done in state.closed]
    sites = {
        site: _people(demo, site, words[site], uses[site])
        | comparisons["sites"][site]
        | _privacy(budgets[site], state)
        | _earned(state, site)
        for site in demo.study.sites
    }
    return {
        "study": {
            "id": state.study,
            "name": demo.study.name,
            "title": state.plan.title,
            "purpose": state.plan.purpose.statement,
            "plan_hash": state.plan.plan_hash,
            "rounds": state.plan.rounds.count,
            "epsilon": float(state.plan.privacy.epsilon),
            "delta": float(state.plan.privacy.delta),
        },
        "seed": demo.options.seed,
        "processes": _processes(demo, opened, nodes),
        "rounds": [_round(state, index, opened, validation, uses, budgets) for index in range(len(state.closed))],
        "sites": sites,
        "summary": comparisons["summary"],
        "baselines": comparisons["baselines"],
        "events": _events(uses),
        "time_to_stop": _time_to_stop(nodes),
        "valuation": _valuation(state, tables),
        "ledger": _ledger(state),
        "log": _log(history, opened),
        "export": str(demo.export),
        "seconds": dict(seconds),
    }


def _uses(node: NodeFolder, study: str) -> dict[int, RoundUse]:
    with read(node.engine) as session:
        return {use.round: use for use in session.exec(select(RoundUse).where(RoundUse.study == study))}


def _parameters(state: StudyState, name: str, opened: CoordinatorFolder) -> Any:
    return unpack_vector(opened.blobs.get(name), state.plan.aggregation.encoding, length=parameter_count(state.plan))


def _people(demo: Demo, site: str, words: Mapping[str, str], uses: Mapping[int, RoundUse]) -> dict[str, Any]:
    """Rows by what their people said at the start, and how many withdrew later."""
    subject = demo.plan_draft.schema_contract.subject
    rows = [words[row[subject]] for row in demo.split.training[site]]
    last = json.loads(uses[max(uses)].counts) if uses else {}
    return {
        "rows": len(rows),
        "subjects": len(words),
        "consented": rows.count("grant"),
        "refused": rows.count("refuse"),
        "expired": rows.count("expire"),
        "withdrawn": int(last.get("withdrawn", 0)),
    }


def _privacy(budget: BudgetLedger, state: StudyState) -> dict[str, Any]:
    return {
        "epsilon": budget.spent(state.study),
        "epsilon_pld": budget.spent_pld(state.study),
        "delta": float(budget.terms.delta),
        "renyi_order": budget.terms.order,
    }


def _earned(state: StudyState, site: str) -> dict[str, Any]:
    for payment in state.payments:
        if payment.site == site:
            return {"value": float(Fraction(payment.value)), "reward_microcredits": payment.reward}
    return {"value": 0.0, "reward_microcredits": 0}


def _round(
    state: StudyState,
    index: int,
    opened: CoordinatorFolder,
    validation: SubjectBatch,
    uses: Mapping[str, Mapping[int, RoundUse]],
    budgets: Mapping[str, BudgetLedger],
) -> dict[str, Any]:
    done = state.closed[index]
    parameters = from_fixed(_parameters(state, done.model, opened))
    there = validation.mask.astype(bool)
    scores = logits(parameters, validation.x[there], state.plan.model)
    return {
        "round": done.number,
        "participants": sorted(state.site(did) for did in done.admitted),
        "refused": [{"name": state.site(did), "reason": reason} for did, reason in sorted(done.refused.items())],
        "aggregate_sha256": done.model,
        "auc_validation": auc(scores, validation.y[there]),
        "subjects_used": {site: found[done.number].eligible for site, found in uses.items() if done.number in found},
        "epsilon_spent": {site: _epsilon_until(budget, state.study, done.number) for site, budget in budgets.items()},
    }


def _epsilon_until(budget: BudgetLedger, study: str, round_number: int) -> float:
    """What the rounds up to this one cost, at the ledger's order and delta."""
    events = [
        charge.event
        for charge in budget.charges()
        if charge.counts and charge.study == study and charge.round <= round_number
    ]
    return accounting.epsilon(events, delta=budget.terms.delta, order=budget.terms.order) if events else 0.0


def _events(uses: Mapping[str, Mapping[int, RoundUse]]) -> list[dict[str, Any]]:
    """The first round that did without the people who withdrew."""
    found = []
    for site, rounds in uses.items():
        before = 0
        for number in sorted(rounds):
            count = int(json.loads(rounds[number].counts).get("withdrawn", 0))
            if count > before:
                found.append({"round": number, "what": "withdrawal", "site": site, "count": count - before})
            before = count
    return found


def _time_to_stop(nodes: Mapping[str, NodeFolder]) -> dict[str, Any]:
    """From each withdrawal's receipt to the end of the last round that had begun with the person, in seconds.

    ``decided_max_s``: to the first decision that knew of it.
    """
    found = [stop for node in nodes.values() for stop in stops(node.registry, node.consent_engine, node.engine)]
    seconds = [stop.last_read.total_seconds() for stop in found if stop.last_read is not None]
    decided = [stop.first_without.total_seconds() for stop in found if stop.first_without is not None]
    return {
        "withdrawals": len(found),
        "in_flight": sum(bool(stop.in_flight) for stop in found),
        "median_s": round(median(seconds), 3) if seconds else 0.0,
        "max_s": round(max(seconds, default=0.0), 3),
        "decided_max_s": round(max(decided, default=0.0), 3),
        "uses_after": sum(stop.uses_after for stop in found),
    }


def _valuation(state: StudyState, tables: Sequence[ValueTable]) -> dict[str, Any]:
    unit = audit.UTILITY_UNIT
    return {
        "v_empty": tables[0].utilities[0] / unit,
        "v_all": tables[-1].utilities[-1] / unit,
        "rounds": [
            {
                "round": table.round,
                "players": [state.site(did) for did in table.players],
                "coalitions": {str(mask): value / unit for mask, value in enumerate(table.utilities)},
            }
            for table in tables
        ],
    }


def _ledger(state: StudyState) -> dict[str, Any]:
    ledger = state.ledger
    return {
        "minted": ledger.minted,
        "escrow": ledger.escrow,
        "burned": ledger.burned,
        "pool": state.plan.reward.pool_microcredits,
        "balances": dict(ledger.balances),
    }


def _log(history: StudyHistory, opened: CoordinatorFolder) -> dict[str, Any]:
    signed = history.checkpoint()
    return {
        "size": signed.checkpoint.size,
        "root": signed.checkpoint.root.hex(),
        "checkpoint": signed.to_bytes().decode("utf-8"),
        "key": opened.key.public.did,
        "cosignatures": len(signed.cosignatures),
    }


def _processes(demo: Demo, opened: CoordinatorFolder, nodes: Mapping[str, NodeFolder]) -> list[dict[str, Any]]:
    pids = json.loads((demo.folder / "processes.json").read_text("utf-8"))
    keys: dict[str, PublicKey] = {"coordinator": opened.key.public}
    keys |= {site: node.key.public for site, node in nodes.items()}
    return [
        {
            "role": "coordinator" if name == "coordinator" else "node",
            "name": name,
            "pid": pids.get(name),
            "peer_id": key.peer_id,
        }
        for name, key in keys.items()
    ]
