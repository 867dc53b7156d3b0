"""``accord agreement``: read a study in plain language, sign its agreement, revoke it."""

import sys
from typing import Annotated

import typer

from clients.storage import StudyMembership
from federation.cli.output import DirOption, JsonOption, emit, group, interactive
from federation.errors import OperatorError
from federation.rules.documents import Revocation
from federation.rules.explain import explain
from federation.rules.instant import format_instant
from federation.rules.keys import PublicKey
from federation.rules.statements import in_credits
from federation.rules.study import StudyPlan, open_plan

app = group("Review a study in plain language; sign its agreement, or revoke it.")

StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest joined.")]


@app.command()
def review(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Show in plain words what the study asks of this institution, and what it gives.

    Example: accord agreement review --dir node
    """
    from clients.folder import open_node_folder

    opened = open_node_folder(folder)
    membership = opened.membership(study)
    plan, envelope = open_plan(membership.plan, signer=PublicKey.from_did(membership.coordinator))
    fee = (plan.reward.fees or {}).get(opened.key.public.did)
    text = (
        explain(plan)
        + _fee(plan, fee)
        + f"\n\nSigned by the coordinator {envelope.signer.did}.\n"
        + f"To agree: accord agreement sign --nominal-cohort N --dir {folder}"
    )
    data = {
        "study": plan.study_id,
        "plan_hash": plan.plan_hash,
        "signer": envelope.signer.did,
        "plan": plan.model_dump(mode="json", by_alias=True, exclude_none=True),
        "fee_microcredits": fee,
        "text": text,
    }
    emit(data, as_json=as_json, text=text)


@app.command()
def sign(
    folder: DirOption,
    nominal_cohort: Annotated[
        int,
        typer.Option(
            "--nominal-cohort",
            min=1,
            help="About how many people you expect to take part, rounded: it is public, and weights and noise use it.",
        ),
    ],
    study: StudyOption = None,
    dataset: Annotated[
        str, typer.Option("--dataset", help="The registered data set to use; default: the only one.")
    ] = "",
    same_owner_as: Annotated[
        list[str] | None,
        typer.Option(
            "--same-owner-as",
            help="The site name of another institution of your owner; repeat it. It counts if that one names you.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign the agreement under this institution's key; `accord node run` brings it to the coordinator.

    Example: accord agreement sign --nominal-cohort 240 --dir node
    """
    from clients.cli.steps import sign_agreement
    from clients.folder import open_node_folder

    opened = open_node_folder(folder)
    membership = opened.membership(study)
    plan, _ = open_plan(membership.plan, signer=PublicKey.from_did(membership.coordinator))
    if membership.agreement:
        raise OperatorError(
            f"The agreement to {plan.study_id} is signed already ({membership.status}).",
            remedy="To end it, use `accord agreement revoke`.",
        )
    if not yes:
        ask_to_sign(plan, membership, (plan.reward.fees or {}).get(opened.key.public.did))
    agreement = sign_agreement(
        opened, membership, plan, nominal_cohort=nominal_cohort, dataset=dataset, same_owner_as=same_owner_as or ()
    )
    emit(
        agreement.model_dump(mode="json", exclude_none=True),
        as_json=as_json,
        text=f"Signed: {membership.site} takes part in {plan.study_id}.\n"
        f"{_next(plan)}`accord node run --dir {folder}`.",
    )


@app.command()
def revoke(
    folder: DirOption,
    study: StudyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Revoke without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End the agreement: from the next round on this institution takes no part; what it earned stays its own.

    Example: accord agreement revoke --dir node
    """
    from clients.folder import open_node_folder
    from federation.coordinator.history import system_clock

    opened = open_node_folder(folder)
    membership = opened.membership(study)
    plan, _ = open_plan(membership.plan, signer=PublicKey.from_did(membership.coordinator))
    if not membership.agreement:
        raise OperatorError(f"No agreement to {plan.study_id} is signed.", remedy="There is nothing to revoke.")
    if not yes:
        _confirm(f"End the agreement of {membership.site} to {plan.study_id}?")
    revocation = Revocation(
        study=plan.study_id,
        plan_hash=plan.plan_hash,
        site=membership.site,
        signed_at=format_instant(system_clock()),
    )
    envelope = revocation.sign(opened.key).to_bytes()
    # From this line on the running node contributes to no further round, whether or not the coordinator answers.
    opened.update_membership(plan.study_id, status="revoked", revocation=envelope)
    emit(
        revocation.model_dump(mode="json") | {"delivered": "by the running node"},
        as_json=as_json,
        text=f"Revoked. This node makes no further update for {plan.study_id}, and tells the coordinator when it runs.",
    )


def _next(plan: StudyPlan) -> str:
    return "Next: " if plan.stake is None else "Next: `accord stake deposit`, which the plan asks for, and "


def _fee(plan: StudyPlan, fee: int | None) -> str:
    """What the plan pays this institution for taking part, where it pays anybody for that."""
    if plan.reward.fees is None:
        return ""
    if fee is None:
        return "\n\nYour fee. None: the plan names other institutions, and you cannot take part."
    return f"\n\nYour fee. {in_credits(fee)} for taking part in every round that counts."


def ask_to_sign(plan: StudyPlan, membership: StudyMembership, fee: int | None) -> None:
    """Show the plan and wait for a yes.

    Raises:
        OperatorError: nobody is there to ask, or the answer is no.
    """
    if interactive():
        sys.stderr.write(explain(plan) + _fee(plan, fee) + "\n\n")
    _confirm(f"Sign this agreement for {membership.site}?")


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and interactive()):
        raise OperatorError(
            "Nobody is here to answer.", remedy="Run the command in a terminal, or give --yes if it is decided."
        )
    if not typer.confirm(question, err=True):
        raise OperatorError("Nothing was signed.", remedy="Run the command again when it is decided.")
