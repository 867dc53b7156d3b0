"""``accord node start``: everything between an invitation and the first round, in one command.

Each step is the one that the single commands take, in their order; a step that was done before is left as it is, so
that the same line, given again after an error, goes on where it stopped.
"""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import typer

from clients.cli.agreement import ask_to_sign
from clients.cli.data import checked_against, checked_text
from clients.cli.steps import join_study, run_node, sign_agreement
from clients.data.dataset import add_dataset
from clients.folder import NodeFolder, create_node, open_node_folder
from clients.storage import StudyMembership
from consent.cli.instructions import VALID_DAYS_DEFAULT, Instruction, Offer, people, sign_all
from consent.cli.options import (
    DecisionsOption,
    DiseaseOption,
    EpsilonMaxOption,
    LicenceOption,
    PurposeOption,
    ValidDaysOption,
)
from consent.cli.texts import decimal
from consent.registry import LICENCE_REF
from consent.rules.record import Action, Mechanism
from consent.wallet import Wallet
from federation.cli.output import DirOption, JsonOption, emit, note
from federation.cli.running import last_status
from federation.rules.invitation import Invitation, parse_invitation
from federation.rules.keys import PublicKey
from federation.rules.study import StudyPlan, open_plan
from federation.settings import PartyFolder, make_settings
from federation.storage.database import read

_DELTA_MAX: Final = Decimal("0.00001")
_WALLET: Final = "people.wallet"


def start(
    invitation: Annotated[str, typer.Argument(help="The string that the coordinator sent; it starts with accord1.")],
    *,
    folder: DirOption,
    data: Annotated[Path, typer.Option("--data", help="The CSV file; it stays where it is.", show_default=False)],
    subject: Annotated[
        str, typer.Option("--subject", help="The column that names whose row it is.", show_default=False)
    ],
    nominal_cohort: Annotated[
        int,
        typer.Option("--nominal-cohort", min=1, help="About how many people you expect to take part, rounded: public."),
    ],
    lifetime_epsilon: Annotated[
        str, typer.Option("--lifetime-epsilon", help="What one person may lose here, ever; fixed with the first start.")
    ] = "3",
    decisions: DecisionsOption = None,
    licence: LicenceOption = False,
    purpose: PurposeOption = None,
    disease: DiseaseOption = None,
    epsilon_max: EpsilonMaxOption = None,
    valid_days: ValidDaysOption = VALID_DAYS_DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", help="Sign the agreement without asking.")] = False,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End when the study's settlement has been seen.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """From an invitation to the first round: make the node, join, register and check the data, agree, run.

    A step that was done before is left as it is: after an error, give the same line again. Decisions that you hold on
    paper come from --decisions (or an owner's --licence), with the terms that the paper states; without them the
    consents in the folder's registry count, such as those of the consent page.

    Example: accord node start accord1.eyJ... --dir node --data heart.csv --subject patient_id --nominal-cohort 240
    """
    invited = parse_invitation(invitation)
    opened = _node(folder, invited, lifetime_epsilon)
    membership, plan = _joined(opened, invited)
    # Until it is signed, mending the file and giving the line again is how a person gets there.
    mending = not membership.agreement
    entry = add_dataset(opened.engine, data, subject_column=subject, name=None, replace=mending, now=datetime.now(UTC))
    note(checked_text(checked_against(plan, entry)))
    _record(opened, _instructed(decisions, licence=licence), _terms(purpose, disease, epsilon_max, valid_days))
    if not membership.agreement:
        if not yes:
            ask_to_sign(plan, membership, (plan.reward.fees or {}).get(opened.key.public.did))
        sign_agreement(opened, membership, plan, nominal_cohort=nominal_cohort, dataset=entry.name)
        note(f"Signed: {membership.site} takes part.")
    if plan.stake is not None:
        note(f"The plan asks for a stake; the study waits until `accord stake deposit --dir {folder}` has pledged it.")
    note(f"Running; Ctrl-C stops, and nothing is lost. Elsewhere: accord node status --dir {folder}")
    run_node(opened, plan.study_id, until_settled=until_settled, visit_s=None, consent_batch_s=60.0)
    emit(last_status(opened.files), as_json=as_json, text="The node has stopped; nothing is lost.")


def _node(folder: Path, invited: Invitation, lifetime_epsilon: str) -> NodeFolder:
    """The node in the folder; a new one where there is none."""
    if PartyFolder(folder).settings.exists():
        return open_node_folder(folder)
    settings = make_settings({"role": "node", "name": invited.site, "lifetime_epsilon": lifetime_epsilon})
    opened = create_node(folder, settings)
    note(f"A node lives in {folder}; back it up, encrypted. Its key is {opened.key.public.did}")
    return opened


def _joined(opened: NodeFolder, invited: Invitation) -> tuple[StudyMembership, StudyPlan]:
    """The study of the invitation, fetched if this node has not joined it."""
    with read(opened.engine) as session:
        known = session.get(StudyMembership, invited.study)
    if known is None:
        plan = join_study(opened, invited)
        note(f"Joined {plan.study_id} as {invited.site}: {plan.title}.")
    membership = opened.membership(invited.study)
    return membership, open_plan(membership.plan, signer=PublicKey.from_did(membership.coordinator))[0]


def _instructed(decisions: Path | None, *, licence: bool) -> list[Instruction]:
    """The decisions that the line names, if any."""
    if decisions is None and not licence:
        return []
    mechanism = Mechanism.LICENCE if licence else None
    named = [LICENCE_REF] if licence else []
    return people((), named, decisions, mechanism=mechanism, action=Action.GRANT, guardian=None)


def _terms(
    purpose: list[str] | None, disease: list[str] | None, epsilon_max: str | None, valid_days: int
) -> Offer | None:
    """The terms that people were told, where they are given."""
    if not purpose or epsilon_max is None:
        return None
    return Offer(
        purposes=tuple(purpose),
        diseases=tuple(disease or ()),
        epsilon_max=decimal(epsilon_max, "--epsilon-max"),
        delta_max=_DELTA_MAX,
        valid_days=valid_days,
        valid_until=None,
    )


def _record(opened: NodeFolder, instructions: list[Instruction], offer: Offer | None) -> None:
    """Sign and register the decisions of people of whom nothing is known yet: a line given twice decides once."""
    registry = opened.registry
    known = registry.heads()
    fresh = [instruction for instruction in instructions if instruction.ref not in known]
    if fresh:
        keys = Wallet(opened.files.path / _WALLET)
        keys.create(instruction.ref for instruction in fresh)
        registry.submit_all(sign_all(registry, keys, fresh, offer))
    if instructions:
        known_before = len(instructions) - len(fresh)
        note(f"Decisions: {len(fresh)} recorded, {known_before} of people who were known before left as they are.")
    elif not known:
        note("No consent is here yet: no row is used until people have said yes (docs/guide/hospital.md, Consent).")
