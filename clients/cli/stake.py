"""``accord stake``: what parties stand in with: deposit it, see it, show a case against one, release it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.output import DirOption, JsonOption, emit, group, read_shown
from federation.cli.rewards import FolderOption
from federation.cli.running import is_running
from federation.errors import OperatorError, PeerError
from federation.rules.instant import format_instant
from federation.rules.statements import in_credits
from federation.settings import PartyFolder, load_settings

if TYPE_CHECKING:
    from federation.coordinator.party import PartyInStudy
    from federation.rules.keys import PrivateKey
    from federation.rules.pledges import Case
    from federation.rules.state import StudyState
    from federation.rules.study import StudyPlan
    from federation.storage.outbox import Outbox

app = group("Stand in with a stake; see stakes; show a case against one; release what is free.")

StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest.")]


@dataclass(frozen=True, slots=True)
class _Standing:
    """Who deposits: its key, the plan, what it must hold, and where the pledge waits."""

    key: "PrivateKey"
    plan: "StudyPlan"
    amount: int
    outbox: "Outbox"


@app.command()
def deposit(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Sign the pledge that the plan asks for: what this party owes if evidence proves that it cheated.

    The study starts when everybody's stake is there. `accord node run` or `accord coordinator run` brings it.

    Example: accord stake deposit --dir node
    """
    from federation.rules.pledges import Pledge

    standing = _standing(folder, study)
    if not standing.amount:
        raise OperatorError(
            f"The plan of {standing.plan.study_id} asks this party for no stake.", remedy="There is nothing to deposit."
        )
    if any(row.kind == "pledge" for row in standing.outbox.documents()):
        raise OperatorError(
            f"The pledge for {standing.plan.study_id} is signed already.", remedy="Look at `accord stake status`."
        )
    pledge = Pledge(
        study=standing.plan.study_id,
        plan_hash=standing.plan.plan_hash,
        amount_microcredits=standing.amount,
        signed_at=format_instant(datetime.now(UTC)),
    )
    standing.outbox.put("pledge", pledge.sign(standing.key).to_bytes())
    emit(
        {**pledge.model_dump(mode="json"), "delivered": "by the running party"},
        as_json=as_json,
        text=f"Pledged {in_credits(standing.amount)} for {standing.plan.study_id}.\nThe running party brings it.",
    )


@app.command()
def slash(
    file: Annotated[Path, typer.Argument(help="A proof of `accord value challenge`, or evidence of a split view.")],
    folder: DirOption,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a case against a party's stake: it is checked here, then by the coordinator, then by every witness.

    While a case that this node brought in time is not in the log, it cosigns no release of that stake.

    Example: accord stake slash proof.json --dir node
    """
    from federation.coordinator.party import name_of, open_party
    from federation.rules.challenge import CHALLENGE_BYTES_MAX
    from federation.rules.pledges import Accusation

    party = open_party(folder, study)
    state = party.state
    _require_stakes(state)
    data = read_shown(file, max_bytes=CHALLENGE_BYTES_MAX + 1, what="case against a stake")
    accused, case = _case(party, folder, data)
    if accused not in state.stakes:
        raise OperatorError(f"{accused} holds no stake in {state.study}.", remedy="Check --study.")
    accusation = Accusation(study=state.study, accused=accused, case=case, signed_at=format_instant(datetime.now(UTC)))
    party.sign("accusation", accusation)
    emit(
        {
            "study": state.study,
            "accused": accused,
            "kind": case.kind,
            "stake_microcredits": state.stakes[accused],
            "delivered": "by the running party",
        },
        as_json=as_json,
        text=f"The case ({case.kind}) against {name_of(state, accused)}'s stake of {in_credits(state.stakes[accused])} "
        "holds here.\nThe running party brings it into the log.",
    )


@app.command()
def status(folder: FolderOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Who stands in with what, which cases there are, and until when; from the verified log.

    Example: accord stake status --dir node
    """
    from federation.coordinator.party import name_of, read_study
    from federation.rules.stakes import appeal_ends, free_at, heard_until, stakes_due

    state = read_study(folder, study)[1].state
    _require_stakes(state)
    due = {**stakes_due(state), **state.stakes}
    parties = [_party(state, did, amount) for did, amount in due.items()]
    cases = [
        {
            "id": name,
            "party": name_of(state, each.party),
            "kind": each.case.kind,
            "status": each.status,
            "logged": format_instant(each.at),
            "answer_until": format_instant(appeal_ends(state, each)),
        }
        for name, each in state.slashes.items()
    ]
    windows = {
        "heard_until": format_instant(heard_until(state)) if state.settled else None,
        "free_at": format_instant(free_at(state)) if state.settled else None,
    }
    waiting = _waiting(folder, state.study)
    lines = [f"Stakes in {state.study}:"]
    lines += [f"  {each['party']:<18} {in_credits(each['microcredits']):>16}  {each['status']}" for each in parties]
    lines += [f"  case {each['id'][:12]} ({each['kind']}) against {each['party']}: {each['status']}" for each in cases]
    lines.append(
        f"Evidence is heard until {windows['heard_until']}, stakes are free after {windows['free_at']}."
        if state.settled
        else "Evidence is heard from now on; windows run from the settlement."
    )
    lines += [f"waiting  {each['kind']}: {each['problem'] or 'for the running party'}" for each in waiting]
    emit(
        {"study": state.study, "parties": parties, "cases": cases, **windows, "waiting": waiting},
        as_json=as_json,
        text="\n".join(lines),
    )


@app.command()
def release(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Release the stakes whose time has come, and burn those that nobody could defend (coordinator, while stopped).

    A running coordinator does this by itself for the study that it runs; this is for one that is long over.

    Example: accord stake release --dir coordinator
    """
    from functools import partial

    from federation.coordinator.answering import answer_to
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.party import name_of
    from federation.coordinator.submissions import Submissions
    from federation.rules.stakes import free_at
    from federation.storage.log import SqliteLog

    opened = open_coordinator(folder)
    history = opened.history(study)
    _require_stakes(history.state)
    if is_running(opened.files):
        raise OperatorError(
            f"The coordinator in {folder} runs; it releases stakes by itself when their time has come.",
            remedy="Look at `accord stake status`, or stop it first if it runs another study.",
        )
    answer = partial(answer_to, logs=lambda: [SqliteLog(opened.engine, name) for name in opened.studies()])
    made = Submissions(history, opened.blobs).due(answer)
    state = history.state
    if not made:
        when = f"before {format_instant(free_at(state))}" if state.settled else "before the study is settled"
        raise OperatorError(f"Nothing is released {when}.", remedy="Look at `accord stake status`.")
    released = sorted(name_of(state, did) for did in state.released)
    kinds = [body.kind for body in made]
    emit(
        {"study": state.study, "entries": kinds, "released": released},
        as_json=as_json,
        text=f"Logged: {', '.join(kinds)}.\nRun coordinator and nodes, so that witnesses cosign it.",
    )


def _standing(folder: Path, study: str | None) -> _Standing:
    """The party in a folder and what its plan asks of it, also before any log has arrived."""
    from clients.folder import open_node_folder
    from federation.coordinator.folder import open_coordinator
    from federation.rules.keys import PublicKey
    from federation.rules.study import open_plan
    from federation.storage.outbox import Outbox

    if load_settings(folder).role != "node":
        coordinator = open_coordinator(folder)
        plan, _ = coordinator.plan(study)
        amount = plan.stake.coordinator_microcredits if plan.stake else 0
        return _Standing(coordinator.key, plan, amount, coordinator.outbox(plan.study_id))
    opened = open_node_folder(folder)
    membership = opened.membership(study)
    plan, _ = open_plan(membership.plan, signer=PublicKey.from_did(membership.coordinator))
    if not membership.agreement or membership.revocation:
        raise OperatorError(
            f"No agreement to {plan.study_id} stands.", remedy="Sign it first: `accord agreement sign`."
        )
    amount = plan.stake.institution_microcredits if plan.stake else 0
    return _Standing(opened.key, plan, amount, Outbox(opened.engine, plan.study_id))


def _case(party: "PartyInStudy", folder: Path, data: bytes) -> "tuple[str, Case]":
    """Whom a file accuses, and the case that it makes, checked as the log's rules and every witness will.

    Raises:
        PeerError: it proves nothing against a party of this study.
    """
    from federation.learning.evaluation import committed_utility
    from federation.rules.canonical import sha256_hex
    from federation.rules.challenge import verify_challenge
    from federation.rules.equivocation import EVIDENCE_BYTES_MAX, verify_evidence
    from federation.rules.evidence import check_false_utility
    from federation.rules.pledges import FalseUtility, SplitView
    from federation.storage.blobs import FolderBlobStore

    state = party.state
    if len(data) <= EVIDENCE_BYTES_MAX and b'"kind":"two-' in data:
        found = verify_evidence(data)
        return found.signer.did, SplitView(evidence=data.decode("utf-8"))
    shown = verify_challenge(data, coordinator=state.coordinator, utility=committed_utility)
    if shown.study != state.study or shown.round > len(state.closed):
        raise PeerError(f"The proof is about {shown.study}, not {state.study}.", remedy="Name that study: --study.")
    case = FalseUtility(round=shown.round, coalition=shown.coalition, proof=sha256_hex(data))
    check_false_utility(state, case, data, committed_utility)
    FolderBlobStore(PartyFolder(folder).blobs).put(data)
    return state.coordinator.did, case


def _party(state: "StudyState", did: str, amount: int) -> dict[str, Any]:
    from federation.coordinator.party import name_of
    from federation.rules.stakes import appeal_ends, burnt, pending_slash

    told = "missing"
    if did in state.released:
        told = "released"
    elif burnt(state, did):
        told = "burned: it owes this"
    elif (name := pending_slash(state, did)) is not None:
        over = datetime.now(UTC) > appeal_ends(state, state.slashes[name])
        told = "slashed and unanswered: it owes this" if over else "slashed, may be answered"
    elif did in state.stakes:
        told = "held"
    return {"party": name_of(state, did), "did": did, "microcredits": amount, "status": told}


def _waiting(folder: Path, study: str) -> list[dict[str, str]]:
    """What a party's outbox still holds; nothing for an exported study."""
    from federation.storage.database import open_database
    from federation.storage.outbox import Outbox, OutgoingDocument

    files = PartyFolder(folder)
    if not files.settings.exists():
        return []
    rows = Outbox(open_database(files.database, OutgoingDocument), study).waiting()
    return [{"kind": row.kind, "problem": row.problem} for row in rows]


def _require_stakes(state: "StudyState") -> None:
    if state.plan.stake is None:
        raise OperatorError(
            f"The plan of {state.study} asks for no stakes.", remedy="A plan with a section stake does."
        )
