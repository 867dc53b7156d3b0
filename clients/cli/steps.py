"""What several commands of a node do: fetch a study's plan, sign its agreement, run until stopped."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from clients.cli.dialling import host_of
from clients.comparison import make_sealing_key
from clients.folder import NodeFolder
from clients.joining import join, membership_of
from clients.node import NodeParts
from clients.privacy.budget import BudgetLedger
from federation.cli.output import note
from federation.cli.running import running
from federation.coordinator.history import system_clock
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.rules.invitation import Invitation
from federation.rules.study import Agreement, StudyPlan, open_plan
from federation.rules.succession import signers_of
from federation.rules.wire import describe
from federation.storage.database import write

if TYPE_CHECKING:
    from clients.node import Node
    from clients.storage import StudyMembership
    from federation.cli.figures import Sample


def join_study(opened: NodeFolder, invited: Invitation) -> StudyPlan:
    """Fetch the coordinator's signed plan and keep it; nothing is agreed yet.

    Raises:
        UnavailableError: the coordinator cannot be reached.
        PeerError: it refuses the invitation, or its plan is another one.
    """
    with host_of(opened, invited.coordinator) as host:
        plan, envelope = join(host, invited)
    opened.blobs.put(envelope)  # the log's first entry names it: with it the replica can be read by itself
    with write(opened.engine) as session:
        session.merge(membership_of(invited, envelope, now=system_clock()))
    return plan


def sign_agreement(
    opened: NodeFolder,
    membership: "StudyMembership",
    plan: StudyPlan,
    *,
    nominal_cohort: int,
    dataset: str,
    same_owner_as: Sequence[str] = (),
) -> Agreement:
    """Sign for this institution; the running node brings it to the coordinator.

    Raises:
        OperatorError: owners are named where the plan takes no account of them, or not as sites are named.
    """
    if same_owner_as and plan.overlap is None:
        raise OperatorError(
            f"{plan.study_id} takes no account of who owns an institution.",
            remedy="Leave --same-owner-as out: the plan has no [overlap] section.",
        )
    try:
        agreement = Agreement(
            study=plan.study_id,
            plan_hash=plan.plan_hash,
            site=membership.site,
            nominal_cohort=nominal_cohort,
            signed_at=format_instant(system_clock()),
            overlap_key=None if plan.overlap is None else make_sealing_key(opened.engine, plan.study_id),
            same_owner_as=tuple(same_owner_as) or None,
        )
    except ValidationError as error:
        raise OperatorError(
            f"This cannot be agreed to: {describe(error)}.", remedy="Mend the option that is named."
        ) from error
    envelope = agreement.sign(opened.key).to_bytes()
    opened.update_membership(plan.study_id, agreement=envelope, status="agreed", dataset=dataset)
    return agreement


def run_node(
    opened: NodeFolder, study: str | None, *, until_settled: bool, visit_s: float | None, consent_batch_s: float
) -> None:
    """Take part in a study until stopped; ``party.log`` and the status file tell what happens meanwhile."""
    membership = opened.membership(study)
    with running(opened.files, opened.settings) as party:
        from clients.node import Node
        from federation.cli.health import health

        plan, envelope = open_plan(membership.plan)
        with host_of(opened, *signers_of(plan, envelope.signer), serving=True) as host:
            node = Node(
                NodeParts(
                    key=opened.key,
                    engine=opened.engine,
                    registry=opened.registry,
                    replica=opened.replica(membership.study),
                    blobs=opened.blobs,
                    exchange=host,
                    membership=membership,
                    evidence=opened.evidence,
                    consent_batch_s=consent_batch_s,
                    subject_share_percent=opened.settings.subject_share_percent,
                    peer_models=opened.settings.peer_models,
                )
            )
            note(f"{membership.site} takes part in {membership.study}")
            with health(opened.settings.health, party, partial(_figures, node, opened)):
                node.run(
                    party.stop,
                    until_settled=until_settled,
                    visit_s=visit_s,
                    on_progress=party.show_status,
                )
            party.show_status(node.status())


def _figures(node: "Node", opened: NodeFolder) -> Iterator["Sample"]:
    """What the operators of a running node watch."""
    from federation.cli.figures import Sample, study_figures, traffic_figures

    yield from study_figures(node.witness.state, party=opened.key.public.did)
    yield from traffic_figures()
    budget = BudgetLedger(opened.engine, clock=system_clock)
    yield Sample("accord_epsilon_spent", budget.spent())
    yield Sample("accord_epsilon_lifetime", float(budget.terms.epsilon))
