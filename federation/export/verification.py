"""Verifying an exported study offline: nothing is believed that can be recomputed.

In this order: the plan and who signed it; the manifest, that is every file and every byte; each entry's signature and
the rules of the log; agreements; checkpoints with their roots, cosignatures and quorums, and the inclusion of what
matters; every round's model from its updates; values and payments from the value tables; the ledger; with
disclosed validation rows also every utility and every standard error. All but the manifest's own check is independent
of the manifest, so that a coordinator who signs false files is caught as well.
"""

import shlex
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from federation.errors import PeerError
from federation.export.folding import FoldedLog, fold, open_exported_plan
from federation.export.layout import (
    CHECKPOINTS,
    LOG,
    MANIFEST,
    PLAN,
    ROOT,
    ROOT_ROWS,
    ROOT_SALT,
    VALIDATION,
    VALIDATION_ROWS,
    VALIDATION_SALT,
    ExportFolder,
    agreement_path,
    blob_path,
    checkpoint_path,
    disclosed_validation,
    entry_path,
    list_export,
    needed_blobs,
    placed,
)
from federation.export.manifest import Manifest, check_manifest
from federation.export.references import check_references, shows_root
from federation.export.report import VerificationReport, VerifiedRound
from federation.learning.evaluation import committed_utility, utilities_of
from federation.learning.uncertainty import study_errors
from federation.rules import audit
from federation.rules.aggregation import rule_of
from federation.rules.canonical import sha256_hex
from federation.rules.challenge import DRAWN, NOBODY
from federation.rules.checkpoint import SignedCheckpoint, finality_quorum, open_checkpoint
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.evidence import check_evidence
from federation.rules.keys import PublicKey
from federation.rules.merkle import inclusion_proof, root, verify_inclusion
from federation.rules.state import ClosedRound, StudyState
from federation.rules.succession import signers_of
from federation.rules.validation import read_validation
from federation.rules.value_sample import coalitions_of


def verify_export(folder: Path, key: PublicKey | None) -> VerificationReport:
    """Verify everything in ``folder``.

    Args:
        folder: what ``write_export`` made.
        key: the coordinator's key, from outside the folder. None verifies against the key that signed the plan inside;
            the report then says that the signer is unproven (see ``VerificationReport.require_proven_signer``).

    Raises:
        PeerError: something does not verify; the file is named.
        OperatorError: the folder is not there or cannot be read.
    """
    files = list_export(folder)
    plan_bytes = files.read(PLAN)
    plan, envelope = open_exported_plan(plan_bytes, signer=key)
    signer = envelope.signer
    manifest, exporter = check_manifest(files, signers=signers_of(plan, signer))
    folded = fold(plan, plan_bytes, signer, _entries(files))
    state = folded.state
    _check_exporter(exporter, state)
    _check_head(manifest, folded)
    _check_agreements(files, folded)
    newest, checkpoints = _check_checkpoints(files, folded)
    _check_inclusion(folded, newest)
    blobs = _blob_reader(files)
    for done in state.closed:
        with placed(entry_path(done.entry_index)):
            audit.check_round(done, state, blobs)
    tables = _check_settlement(folded, blobs)
    check_cases(folded, blobs)
    state.ledger.check()
    utilities = _check_with_rows(files, folded, tables, blobs)
    _check_nothing_more(files, folded)
    witnesses = folded.witnesses[-1]
    return VerificationReport(
        study=state.study,
        title=plan.title,
        coordinator=signer,
        signer_proven=key is not None,
        plan_hash=plan.plan_hash,
        log_size=state.size,
        log_root=newest.checkpoint.root,
        checkpoints=checkpoints,
        cosignatures=len(newest.cosignatures),
        quorum=finality_quorum(len(witnesses)) if witnesses else None,
        rounds=tuple(_verified_round(state, done) for done in state.closed),
        aggregation=plan.aggregation.rule,
        linear=rule_of(plan).linear,
        references_recomputed=check_references(files, state, blobs),
        method=plan.valuation.method,
        sampled=sum(table.seed is not None for table in tables),
        settled=state.settled,
        values={state.site(did): value for did, value in audit.values(state, tables).items()} if state.settled else {},
        rewards={payment.site: payment.total for payment in state.payments},
        z=plan.reward.z,
        errors={
            state.site(did): Fraction(error, audit.UTILITY_UNIT)
            for did, error in audit.standard_errors(state.payments).items()
        },
        ledger=state.ledger.to_json(),
        utilities_recomputed=utilities,
        scored_by=_scored_by(state),
        files=len(files.sizes),
        size_bytes=sum(files.sizes.values()),
    )


def _verified_round(state: StudyState, done: ClosedRound) -> VerifiedRound:
    return VerifiedRound(
        number=done.number,
        outcome=done.outcome,
        sites=tuple(sorted(state.site(did) for did in done.admitted)),
        refused={state.site(did): reason for did, reason in sorted(done.refused.items())},
        model=done.model,
    )


def _scored_by(state: StudyState) -> tuple[str, ...] | None:
    if state.plan.valuation.panel is None:
        return None
    shown = state.panel.shown if state.panel is not None else {}
    return tuple(sorted(map(state.site, shown)))


def _entries(files: ExportFolder) -> list[bytes]:
    """The log's entries, whose names must count from 0 without a gap."""
    found = set(files.within(LOG))
    paths = [entry_path(index) for index in range(len(found))]
    for path in sorted(found - set(paths)):
        raise PeerError(
            f"{path}: the log's files do not count from 0 without a gap.", remedy="Ask for a complete export."
        )
    return [files.read(path) for path in paths]


def _check_exporter(exporter: PublicKey, state: StudyState) -> None:
    """Whoever leads at the end of the log exports it."""
    if exporter != state.leader:
        raise PeerError(
            f"{MANIFEST}: it is signed by {exporter.did}, and {state.leader.did} leads the study.",
            remedy="Ask the leading coordinator for the export.",
        )


def _check_head(manifest: Manifest, folded: FoldedLog) -> None:
    expected = (folded.state.study, folded.state.size, root(folded.leaves).hex())
    if (manifest.study, manifest.log_size, manifest.log_root) != expected:
        raise PeerError(f"{MANIFEST}: it is of another study or another log.", remedy="Ask for the export again.")


def _check_agreements(files: ExportFolder, folded: FoldedLog) -> None:
    by_path = {agreement_path(folded.state.site(did)): envelope for did, envelope in folded.agreements.items()}
    for path, envelope in sorted(by_path.items()):
        if files.read(path) != envelope:
            raise PeerError(
                f"{path}: this is not the agreement that the log holds.", remedy="Keep the export as evidence."
            )


def _check_checkpoints(files: ExportFolder, folded: FoldedLog) -> tuple[SignedCheckpoint, int]:
    """The newest checkpoint, and how many there are; every one is signed, cosigned and true.

    Cosignatures may also be by institutions that agreed after the checkpoint was made; only those that had agreed count
    for its quorum.
    """
    state = folded.state
    sizes = {checkpoint_path(size): size for size in range(1, state.size + 1)}
    opened: dict[int, SignedCheckpoint] = {}
    for path in files.within(CHECKPOINTS):
        with placed(path):
            size = sizes.get(path)
            if size is None:
                raise PeerError("the log does not have this size.", remedy="Ask for the export again.")
            known = {*folded.witnesses[size], *folded.witnesses[-1]}
            data = files.read(path)
            signer = state.leader_at(size)
            opened[size] = open_checkpoint(data, origin=state.plan.origin, signer=signer, witnesses=known)
            head = opened[size].checkpoint
            if head.size != size or head.root != root(folded.leaves[:size]):
                raise PeerError(
                    "it is not over these entries.", remedy="Keep both: the coordinator signed two histories."
                )
    if state.size not in opened:
        raise PeerError(f"{checkpoint_path(state.size)}: the file is missing.", remedy="Ask for a complete export.")
    if folded.settlement is not None:
        settled, seen = folded.settlement.index, state.closed[-1].entry_index + 1 if state.closed else 0
        _check_final(opened, range(seen, settled + 1), folded)
        _check_final(opened, range(settled + 1, state.size + 1), folded)
    return opened[state.size], len(opened)


def _check_final(opened: Mapping[int, SignedCheckpoint], sizes: range, folded: FoldedLog) -> None:
    """Money moves only after a quorum of witnesses saw the last round, and is final when they saw the settlement.

    One checkpoint of these sizes must be final. What may follow a settlement need not be yet: the report says so.
    """
    size = sizes[-1]
    witnesses = set(folded.witnesses[size])
    quorum = finality_quorum(len(witnesses))
    shown = [opened[each] for each in sizes if each in opened]
    count = max((len({item.witness for item in signed.cosignatures} & witnesses) for signed in shown), default=0)
    if count < quorum:
        raise PeerError(
            f"{checkpoint_path(size)}: {count} witnesses cosigned where a settlement needs {quorum}.",
            remedy="Run coordinator and nodes until the witnesses have cosigned, then export again.",
        )


def check_cases(folded: FoldedLog, proofs: audit.Blobs) -> None:
    """Verify every case against a stake, and every answer, that rests on a blob.

    Raises:
        PeerError: a blob does not prove what its entry says; the entry is named.
    """
    for index, entry in enumerate(folded.entries):
        with placed(entry_path(index)):
            check_evidence(folded.state, entry, proofs, committed_utility)


def _check_inclusion(folded: FoldedLog, newest: SignedCheckpoint) -> None:
    """Each round's result and the settlement are in the tree that the witnesses saw."""
    head = newest.checkpoint
    indexes = [done.entry_index for done in folded.state.closed]
    if folded.settlement is not None:
        indexes.append(folded.settlement.index)
    for index in indexes:
        with placed(entry_path(index)):
            proof = inclusion_proof(folded.leaves, index)
            verify_inclusion(leaf=folded.leaves[index], index=index, size=head.size, proof=proof, root=head.root)


def _blob_reader(files: ExportFolder) -> Callable[[str], bytes]:
    def read_blob(name: str) -> bytes:
        path = blob_path(name)
        data = files.read(path)
        if sha256_hex(data) != name:
            raise PeerError(f"{path}: the bytes do not match the name.", remedy="Ask for the export again.")
        return data

    return read_blob


def _check_settlement(folded: FoldedLog, blobs: audit.Blobs) -> list[ValueTable]:
    """Recompute values and payments; the opened tables by round, none while the study runs."""
    settlement = folded.settlement
    if settlement is None:
        return []
    with placed(entry_path(settlement.index)):
        tables = audit.check_settlement(settlement.before, settlement.body, blobs)
    return [tables[number] for number in sorted(tables)]


def _disclosed(files: ExportFolder, folded: FoldedLog) -> SubjectBatch | None:
    """The validation rows, which must be those of the commitment; None while they are sealed."""
    state = folded.state
    if not state.settled or state.plan.validation.disclosure != "public":
        return None
    _, rows = disclosed_validation(files, state.plan.validation.commitment)
    with placed(VALIDATION_ROWS):
        return read_validation(state.plan, rows)


def _check_with_rows(
    files: ExportFolder, folded: FoldedLog, tables: list[ValueTable], blobs: audit.Blobs
) -> int | None:
    """With disclosed rows, recompute utilities and standard errors; how many utilities, None where rows are sealed."""
    batch = _disclosed(files, folded)
    if batch is None:
        return None
    count = _check_utilities(files, folded, tables, blobs, batch)
    _check_errors(folded, tables, blobs, batch)
    return count


def _check_utilities(
    files: ExportFolder, folded: FoldedLog, tables: list[ValueTable], blobs: audit.Blobs, batch: SubjectBatch
) -> int:
    """Recompute every coalition's utility; how many."""
    state, count = folded.state, 0
    for done, table in zip(state.closed, tables, strict=True):
        base, updates = audit.round_vectors(done, state, blobs)
        coalitions = coalitions_of(table, state.plan.valuation)
        own = utilities_of(
            coalitions,
            base,
            updates,
            state.weights,
            table.players,
            batch,
            state.plan.valuation.loss_bound,
            audit.round_rule(done, state, blobs),
            state.plan.model,
        )
        for place, (committed, recomputed) in enumerate(zip(table.utilities, own, strict=True)):
            if not audit.same_utility(committed, recomputed):
                named = [state.site(did) for bit, did in enumerate(table.players) if coalitions[place] >> bit & 1]
                coalition = DRAWN.format(place) if table.seed else ",".join(named) or NOBODY
                raise PeerError(
                    f"{blob_path(done.value_table)}: the utility of coalition {place} in round {done.number} is "
                    f"{committed}, the rows give {recomputed} (in units of 2^-40).",
                    remedy="Keep the export as evidence: the coordinator committed to a false utility. To write "
                    f"a proof for anybody: accord value challenge {coalition} --dir {shlex.quote(str(files.root))} "
                    f"--round {done.number}",
                )
            count += 1
    return count


def _check_errors(folded: FoldedLog, tables: list[ValueTable], blobs: audit.Blobs, batch: SubjectBatch) -> None:
    """Recompute the standard errors, where the plan pays by lower bounds."""
    state, settlement = folded.state, folded.settlement
    if settlement is None or state.plan.reward.z is None:
        return
    own, committed = study_errors(state, tables, batch, blobs), audit.standard_errors(settlement.body.payments)
    for did, error in committed.items():
        if not audit.same_utility(error, own[did]):
            raise PeerError(
                f"{entry_path(settlement.index)}: the standard error of {state.site(did)}'s value is {error}, the rows "
                f"give {own[did]} (in units of 2^-40).",
                remedy="Keep the export as evidence: the coordinator committed to a false standard error.",
            )


def _check_nothing_more(files: ExportFolder, folded: FoldedLog) -> None:
    """Whatever the log does not account for does not belong to the study, even if the manifest names it."""
    state = folded.state
    known = {PLAN, MANIFEST, *files.within(LOG), *files.within(CHECKPOINTS)}
    known |= {agreement_path(state.site(did)) for did in folded.agreements}
    known |= {blob_path(name) for name in needed_blobs(state)}
    if state.settled and state.plan.validation.disclosure == "public":
        known |= {VALIDATION_ROWS, VALIDATION_SALT}
    if shows_root(state):
        known |= {ROOT_ROWS, ROOT_SALT}
    for path in sorted(set(files.sizes) - known):
        sealed = path.startswith((f"{VALIDATION}/", f"{ROOT}/"))
        why = "these rows are not disclosed (yet)" if sealed else "the study's log knows nothing of this file"
        raise PeerError(f"{path}: {why}.", remedy="Remove it, or ask for a fresh export.")
