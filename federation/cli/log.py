"""``accord log``: verify an exported study offline, read a study's log, check evidence of a split view."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from federation.cli.output import JsonOption, emit, emit_and_raise, group, note, public_key, read_shown
from federation.errors import OperatorError, UnprovenSignerError

if TYPE_CHECKING:
    from federation.export.folding import FoldedLog

app = group("Verify an exported study offline; look into its log.")

_MICRO: Final = 1_000_000
_HASH_SHOWN: Final = 12


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="What `accord study export` wrote.")],
    key: Annotated[
        str | None,
        typer.Option("--key", help="The coordinator's key (did:key:... or peer id), obtained outside the folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check everything in an exported study: signatures, log, checkpoints, models, values, payments, every byte.

    Without --key all is checked as well, but who signed it stays unproven (exit code 3).

    Example: accord log verify demo/export --key did:key:z6Mk...
    """
    from federation.export.verification import verify_export

    report = verify_export(folder, None if key is None else public_key(key))
    try:
        report.require_proven_signer()
    except UnprovenSignerError as error:
        emit_and_raise(report.to_json(), error, as_json=as_json, text=report.to_text())
    emit(report.to_json(), as_json=as_json, text=report.to_text())


@app.command()
def show(
    folder: Annotated[Path | None, typer.Argument(help="What `accord study export` wrote.")] = None,
    party: Annotated[
        Path | None, typer.Option("--dir", envvar="ACCORD_DIR", help="A coordinator's folder, instead of an export.")
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Which study of that coordinator.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a study's log, entry by entry; signatures and rules are checked on the way.

    Example: accord log show demo/export
    """
    folded = _exported_log(folder) if folder is not None else _coordinators_log(party, study)
    rows = list(_rows(folded))
    data = {
        "study": folded.state.study,
        "size": folded.state.size,
        "coordinator": folded.state.coordinator.did,
        "entries": [asdict(row) for row in rows],
    }
    emit(data, as_json=as_json, text="\n".join([f"{folded.state.study}: {folded.state.size} entries", *_lines(rows)]))
    if folder is not None and not as_json:
        note("To check models, values and payments as well: `accord log verify`.")


@app.command()
def evidence(
    file: Annotated[Path, typer.Argument(help="Evidence of a split view, from a witness's folder evidence/.")],
    key: Annotated[
        str | None,
        typer.Option("--key", help="The accused party's key (did:key:... or peer id), obtained elsewhere."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check, offline, the proof that one key signed two histories of one log.

    Exit code 0: proven against --key. 3: it proves a split view, but without --key nobody knows whose key that is.
    4: it proves nothing.

    Example: accord log evidence evidence/4f2a....json --key did:key:z6Mk...
    """
    from federation.rules.equivocation import EVIDENCE_BYTES_MAX, verify_evidence

    shown = read_shown(file, max_bytes=EVIDENCE_BYTES_MAX + 1, what="evidence of a split view")
    found = verify_evidence(shown, signer=None if key is None else public_key(key))
    data: dict[str, Any] = {
        "proven": True,
        "kind": found.kind,
        "origin": found.origin,
        "sizes": list(found.sizes),
        "index": found.index,
        "signer": {"key": found.signer.did, "proven": key is not None},
    }
    if key is not None:
        emit(data, as_json=as_json, text=f"Proven: {found.sentence}")
        return
    error = UnprovenSignerError(
        "The evidence is sound, but whose key that is stays unproven.",
        remedy="Give the party's key with --key, obtained from another source than this file.",
    )
    emit_and_raise(data, error, as_json=as_json, text=f"Sound: {found.sentence}")


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry as it is shown; ``site`` is the party's short name."""

    index: int
    time: str
    kind: str
    round: int | None
    site: str | None
    text: str
    id: str


def _exported_log(folder: Path) -> "FoldedLog":
    from federation.export.folding import fold, open_exported_plan
    from federation.export.layout import LOG, PLAN, entry_path, list_export

    files = list_export(folder)
    plan_bytes = files.read(PLAN)
    plan, envelope = open_exported_plan(plan_bytes, signer=None)
    entries = (files.read(entry_path(index)) for index in range(len(files.within(LOG))))
    return fold(plan, plan_bytes, envelope.signer, entries)


def _coordinators_log(party: Path | None, study: str | None) -> "FoldedLog":
    if party is None:
        raise OperatorError("Which log?", remedy="Name an exported study, or a coordinator's folder with --dir.")
    from federation.coordinator.folder import open_coordinator
    from federation.export.folding import fold
    from federation.storage.log import SqliteLog

    opened = open_coordinator(party)
    plan, envelope = opened.plan(study)
    return fold(plan, envelope, opened.coordinator_of(plan.study_id), SqliteLog(opened.engine, plan.study_id).entries())


def _rows(folded: "FoldedLog") -> Iterable[_Row]:
    from federation.rules.entries import AgreementAdmitted
    from federation.rules.study import open_agreement

    sites: dict[str, str] = {}
    for index, entry in enumerate(folded.entries):
        if isinstance(entry.body, AgreementAdmitted) and entry.party is not None:
            sites[entry.party] = open_agreement(entry.body.envelope.encode("utf-8"))[0].site
        site = None if entry.party is None else sites.get(entry.party, entry.party)
        text = _TEXTS[entry.body.kind](entry.body, sites)
        yield _Row(index, entry.time, entry.body.kind, entry.round, site, text, entry.id)


def _lines(rows: Iterable[_Row]) -> Iterable[str]:
    for row in rows:
        where = "" if row.round is None else f"round {row.round}"
        yield f"{row.index:>6}  {row.time}  {where:<10} {row.site or '':<16} {row.text}"


def _refusal(body: Any, _sites: dict[str, str]) -> str:
    from federation.rules.documents import Refusal, open_signed

    refusal, _ = open_signed(Refusal, body.envelope.encode("utf-8"))
    return f"takes no part: {refusal.message} ({refusal.code})"


def _closed(body: Any, sites: dict[str, str]) -> str:
    if body.outcome != "aggregated":
        return "round closed without a quorum; the model stays"
    names = ", ".join(sorted(sites.get(did, did) for did in body.updates))
    return f"round closed: {names}; model {body.model[:_HASH_SHOWN]}"


def _formed(body: Any, sites: dict[str, str]) -> str:
    groups = [" + ".join(sorted(sites.get(did, did) for did in group)) for group in body.clusters]
    return f"people compared; counted as one institution: {'; '.join(groups) or 'nobody'}"


def _settled(body: Any, _sites: dict[str, str]) -> str:
    paid = ", ".join(f"{payment.site} {payment.total / _MICRO:g}" for payment in body.payments)
    return f"study settled, credits: {paid}; burned {body.burned / _MICRO:g}"


_TEXTS: Final[dict[str, Callable[[Any, dict[str, str]], str]]] = {
    "study-published": lambda body, _: (
        f"study published: plan {body.plan_hash[:_HASH_SHOWN]}, {body.minted / _MICRO:g} credits in escrow"
    ),
    "agreement-admitted": lambda _body, _sites: "agreed to the plan",
    "agreement-revoked": lambda _body, _sites: "revoked its agreement",
    "overlap-committed": lambda _body, _sites: "committed to a sketch of its people",
    "overlap-declined": lambda _body, _sites: "does not compare its people",
    "overlap-closed": lambda _body, _sites: "sketches are committed to; they are shown to the other institutions",
    "overlap-reported": lambda _body, _sites: "reported on common people",
    "clusters-formed": _formed,
    "study-started": lambda body, _: (
        f"study started with {len(body.weights)} institutions; first model {body.base_model[:_HASH_SHOWN]}"
    ),
    "round-opened": lambda body, _: f"round opened until {body.deadline}",
    "commitment-late": lambda _body, _sites: "committed too late: commitments were closed",
    "round-reopened": lambda body, _: f"round reopened until {body.deadline}",
    "update-committed": lambda _body, _sites: "committed to an update",
    "participation-refused": _refusal,
    "commitments-closed": lambda _body, _sites: "commitments closed; updates are shown",
    "term-began": lambda body, _: f"the standby leads from here on, by {len(body.promises)} witnesses' promises",
    "update-admitted": lambda _body, _sites: "update admitted",
    "update-refused": lambda body, _: f"update refused: {body.message} ({body.code})",
    "round-closed": _closed,
    "study-aborted": lambda body, _: f"study aborted: {body.reason}",
    "study-settled": _settled,
    "panel-opened": lambda _body, _sites: "rounds are over; institutions score each other",
    "scores-committed": lambda _body, _sites: "committed to its scores",
    "scores-closed": lambda _body, _sites: "scores are committed to; they are shown",
    "scores-shown": lambda _body, _sites: "showed its scores",
    "stake-deposited": lambda _body, _sites: "pledged its stake",
    "stake-slashed": lambda _body, _sites: "a case against its stake",
    "slash-appealed": lambda _body, _sites: "the case is answered; the stake stays",
    "stake-burned": lambda _body, _sites: "the case was not answered; the stake is owed",
    "stake-released": lambda _body, _sites: "its pledge has ended",
    "change-proposed": lambda _body, _sites: "proposed a change of the plan's rounds",
    "vote-cast": lambda _body, _sites: "voted",
}
