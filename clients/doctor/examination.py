"""The examination of one node's folder, machine and line, in the order in which a study would meet them."""

import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from clients.data.check import check_data
from clients.data.dataset import datasets, find_dataset, load_dataset
from clients.doctor import findings
from clients.doctor.findings import Finding, Level
from clients.doctor.reach import reach
from clients.folder import NodeFolder
from clients.privacy.budget import BudgetLedger
from clients.storage import StudyMembership
from federation.errors import AccordError, OperatorError
from federation.network.exchange import Exchange
from federation.network.probe import Line, measure
from federation.rules.accounting import round_event
from federation.rules.admission import parameter_count
from federation.rules.encoding import SubjectBatch, feature_names
from federation.rules.keys import PublicKey
from federation.rules.study import StudyPlan
from federation.rules.vectors import vector_bytes_max

_CONNECT_S: Final = 10.0
_MEASURE_S: Final = 1.5


def machine(opened: NodeFolder) -> list[Finding]:
    """Folder, disk, memory, processor; where it listens, if it does."""
    import psutil

    path = opened.files.path
    found = []
    if os.access(path, os.W_OK):
        found.append(Finding("folder", Level.OK, f"A node lives in {path}; its key is readable by its owner alone."))
    else:
        remedy = "Run as the user who owns the folder."
        found.append(Finding("folder", Level.FAILED, f"{path} cannot be written by this user.", remedy))
    found.append(findings.disk(shutil.disk_usage(path).free, str(path)))
    found.append(findings.memory(int(psutil.virtual_memory().available)))
    cores = psutil.cpu_count(logical=True) or 1
    seen = f"{cores} processor cores, of which {psutil.cpu_percent(interval=0.3):.0f} % are busy."
    found.append(Finding("processor", Level.OK, seen, figures={"cores": float(cores)}))
    settings = opened.settings
    passing_on = findings.passing_on(settings.peer_models, settings.announce or (settings.listen,))
    return found if passing_on is None else [*found, passing_on]


def data(opened: NodeFolder, membership: StudyMembership | None, plan: StudyPlan | None) -> list[Finding]:
    """Data set, agreement, budget: what the institution itself has to bring."""
    found = []
    registered = datasets(opened.engine)
    if not registered:
        remedy = "Register your file: `accord data add FILE --dir DIR --subject COLUMN`."
        found.append(Finding("data", Level.WARNING, "No data set is registered.", remedy))
    elif plan is None:
        names = ", ".join(entry.name for entry in registered)
        found.append(Finding("data", Level.OK, f"Registered: {names}."))
    else:
        found.append(_fits(opened, membership, plan))
    if membership is None:
        remedy = "Join with the string that the coordinator sent: `accord node join INVITATION --dir DIR`."
        return [*found, Finding("study", Level.WARNING, "This node has joined no study yet.", remedy)]
    if not membership.agreement:
        remedy = "Read the plan with `accord agreement review`, then sign it with `accord agreement sign`."
        found.append(Finding("agreement", Level.WARNING, f"{membership.study} is joined, not yet agreed to.", remedy))
    else:
        found.append(Finding("agreement", Level.OK, f"The agreement to {membership.study} is signed."))
    if plan is not None:
        found.append(_affordable(opened, plan))
    return found


def network(
    opened: NodeFolder, membership: StudyMembership, clock: Callable[[], datetime], connect: Callable[[], Exchange]
) -> tuple[list[Finding], Line | None]:
    """Reach the coordinator, prove its key, measure the line and the clock.

    Args:
        opened: the node's folder.
        membership: the study that it joined.
        clock: the time.
        connect: makes this node's end of the network; it is closed here.
    """
    found = reach(membership.address, proxy=opened.settings.proxy)
    if findings.worst(found) is Level.FAILED:
        return found, None
    coordinator = PublicKey.from_did(membership.coordinator)
    with connect() as exchange:
        try:
            exchange.connect(membership.address, timeout_s=_CONNECT_S)
        except AccordError as error:
            remedy = "Another party answers at this address: ask the coordinator for its address of today."
            return [*found, Finding("key", Level.FAILED, error.message, remedy, network=True)], None
        found.append(Finding("key", Level.OK, f"The coordinator proves its key, {coordinator.did}."))
        try:
            line = measure(exchange, coordinator, clock, seconds=_MEASURE_S)
        except AccordError as error:
            remedy = f"Ask the coordinator whether it still expects {opened.key.public.did}, and runs this version."
            return [*found, Finding("line", Level.FAILED, error.message, remedy, network=True)], None
    return [*found, findings.clock(line.clock_ahead_s, line.round_trip_s), findings.line(line)], line


def round_time(plan: StudyPlan, nominal_cohort: int, line: Line | None) -> Finding:
    """Train one round on made-up rows of the plan's shape, without touching anybody's data, and add the travel."""
    from clients.privacy.dp_training import train
    from clients.privacy.noise import SecureNoise

    shape = (nominal_cohort, plan.schema_contract.records)
    rows = SubjectBatch(
        subjects=tuple(f"made-up-{number}" for number in range(nominal_cohort)),
        x=np.full((*shape, len(feature_names(plan.schema_contract))), 0.5),
        y=np.zeros(shape),
        mask=np.ones(shape),
    )
    began = time.monotonic()
    train(plan, np.zeros(parameter_count(plan)), rows, nominal_cohort, Decimal(2), SecureNoise())
    training_s = time.monotonic() - began
    return findings.round_time(
        training_s=training_s,
        model_bytes=vector_bytes_max(parameter_count(plan), plan.aggregation.encoding),
        measured=line,
        deadline_s=plan.rounds.deadline_s,
    )


def _fits(opened: NodeFolder, membership: StudyMembership | None, plan: StudyPlan) -> Finding:
    """Whether the registered file is still what was registered, and fits the plan's columns."""
    try:
        entry = find_dataset(opened.engine, (membership.dataset if membership else "") or None)
        check_data(load_dataset(entry), plan.schema_contract, subject_column=entry.subject_column)
    except OperatorError as error:
        return Finding("data", Level.FAILED, error.message, error.remedy)
    return Finding("data", Level.OK, f"{entry.name} is unchanged and fits the plan's columns.")


def _affordable(opened: NodeFolder, plan: StudyPlan) -> Finding:
    """Whether the plan's next round fits what is left of the people's budget."""
    ledger = BudgetLedger(opened.engine, clock=lambda: datetime.now().astimezone())
    seen = f"{ledger.spent():.3f} of epsilon {ledger.terms.epsilon} is spent"
    if ledger.would_fit(round_event(plan)):
        return Finding("budget", Level.OK, f"{seen}; a round of this plan fits.")
    remedy = "The node will refuse it; `accord budget show` says what is left. A lifetime budget cannot be raised."
    return Finding("budget", Level.WARNING, f"{seen}; a round of this plan does not fit.", remedy)
