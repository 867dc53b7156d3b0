"""``accord node``: make an institution's node, join a study, run, see where it stands."""

from typing import Annotated, Any

import typer

from clients.cli.doctor import doctor
from clients.cli.start import start
from clients.cli.steps import join_study, run_node
from clients.folder import NodeFolder, create_node, open_node_folder
from federation.cli.output import DirOption, JsonOption, emit, group
from federation.cli.running import is_running, last_status
from federation.rules.canonical import sha256_hex
from federation.rules.invitation import parse_invitation
from federation.rules.keys import PublicKey
from federation.rules.replay import begin, replay
from federation.rules.state import StudyState
from federation.rules.study import open_plan
from federation.settings import make_settings

app = group("Run an institution's node: it joins a study by invitation and trains where the data is.")

app.command()(start)
app.command()(doctor)

StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest joined.")]


@app.command()
def init(
    folder: DirOption,
    name: Annotated[str, typer.Option("--name", help="A short name for this institution.")] = "node",
    lifetime_epsilon: Annotated[
        str, typer.Option("--lifetime-epsilon", help="What one person may lose at this institution, ever (at most 8).")
    ] = "3",
    renyi_order: Annotated[
        int,
        typer.Option(
            "--renyi-order",
            min=2,
            max=256,
            help="The Renyi order at which the budget is counted; leave it unless you know why.",
        ),
    ] = 8,
    subject_share: Annotated[
        int,
        typer.Option("--subject-share", min=0, max=100, help="Percent of each reward that is passed on to the people."),
    ] = 50,
    as_json: JsonOption = False,
) -> None:
    """Make a node in an empty folder: key, settings, database, and the lifetime privacy budget, fixed for good.

    Example: accord node init --dir node --name cleveland
    """
    settings = make_settings(
        {
            "role": "node",
            "name": name,
            "lifetime_epsilon": lifetime_epsilon,
            "renyi_order": renyi_order,
            "subject_share_percent": subject_share,
        }
    )
    opened = create_node(folder, settings)
    emit(
        {"dir": str(folder), "did": opened.key.public.did, "peer_id": opened.key.public.peer_id, "name": name},
        as_json=as_json,
        text=f"A node lives in {folder}.\n  key  {opened.key.public.did}\n"
        "Next: join a study with `accord node join INVITATION`.",
    )


@app.command()
def join(
    invitation: Annotated[str, typer.Argument(help="The string that the coordinator sent; it starts with accord1.")],
    folder: DirOption,
    as_json: JsonOption = False,
) -> None:
    """Join a study: the coordinator's signed plan is fetched and kept. Nothing is agreed yet.

    Example: accord node join accord1.eyJ... --dir node
    """
    opened = open_node_folder(folder)
    invited = parse_invitation(invitation)
    plan = join_study(opened, invited)
    emit(
        {"study": plan.study_id, "site": invited.site, "title": plan.title, "plan_hash": plan.plan_hash},
        as_json=as_json,
        text=f"Joined {plan.study_id} as {invited.site}: {plan.title}.\n"
        f"Next: `accord data check --dir {folder}`, then `accord agreement review --dir {folder}`.",
    )


@app.command()
def run(
    folder: DirOption,
    study: StudyOption = None,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End when the study's settlement has been seen.")
    ] = False,
    visit_minutes: Annotated[
        float | None,
        typer.Option("--for-minutes", min=0.1, help="End after so long: for a machine that is online now and then."),
    ] = None,
    consent_batch_s: Annotated[
        float, typer.Option("--consent-batch-s", min=1, help="Seconds between two batches of the consent log.")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Take part in a study until stopped. Stop with Ctrl-C; nothing is lost.

    With --for-minutes a training that is under way is finished first, and sent at the next visit if nobody is there.

    Example: accord node run --dir node
    """
    opened = open_node_folder(folder)
    run_node(
        opened,
        study,
        until_settled=until_settled,
        visit_s=None if visit_minutes is None else 60 * visit_minutes,
        consent_batch_s=consent_batch_s,
    )
    emit(last_status(opened.files), as_json=as_json, text="The node has stopped; nothing is lost.")


@app.command()
def status(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Where this node stands: connection, agreement, round, what it waits for.

    Example: accord node status --dir node
    """
    opened = open_node_folder(folder)
    data = node_status(opened, study)
    emit(data, as_json=as_json, text=_text(data))


def node_status(opened: NodeFolder, study: str | None) -> dict[str, Any]:
    """A node's status from its folder, with what the running process adds."""
    membership = opened.membership(study)
    plan, _ = open_plan(membership.plan)
    alive = is_running(opened.files)
    live = last_status(opened.files) if alive else {}
    replica = opened.replica(membership.study)
    seen = replay(
        begin(plan, plan_blob=sha256_hex(membership.plan), coordinator=PublicKey.from_did(membership.coordinator)),
        replica.entries(),
    )
    if live.get("study", membership.study) != membership.study:
        alive, live = False, {}  # it runs another study
    data: dict[str, Any] = {
        "did": opened.key.public.did,
        "peer_id": opened.key.public.peer_id,
        "study": membership.study,
        "site": membership.site,
        "title": plan.title,
        "running": alive,
        "connected": live.get("connected", False),
        "agreement": live.get("agreement", membership.status),
        "round": live.get("round", len(seen.closed) or None),
        "rounds": plan.rounds.count,
        "settled": live.get("settled", seen.settled),
        "problem": live.get("problem", ""),
        "line": "" if live.get("connected") else live.get("line", ""),
        "consent_log": live.get("consent_log", {}),
        "comparison": _comparison(seen, opened.key.public.did),
    }
    return data | {"awaited": _awaited(data, signed=bool(membership.agreement))}


def _comparison(seen: StudyState, did: str) -> str:
    """How far the comparison of people has come, for this institution; empty where the plan compares none."""
    overlap = seen.overlap
    if seen.plan.overlap is None:
        return ""
    if not overlap.formed:
        return "declined" if did in overlap.declined else "to come: it is part of the agreement"
    mine = [group for group in overlap.clusters if did in group]
    names = [seen.site(other) for group in mine for other in group if other != did]
    return f"counted as one institution with {', '.join(sorted(names))}" if names else "counted as itself"


def _awaited(data: dict[str, Any], *, signed: bool) -> str:
    if not signed:
        return "you: review and sign the agreement (`accord agreement review`, `accord agreement sign`)"
    if not data["running"]:
        if data["settled"]:
            return "nobody: the study is settled"
        return "you: start the node (`accord node run`)"
    if data["problem"]:
        return f"you: {data['problem']}"
    if not data["connected"]:
        return f"the coordinator: {data['line'] or 'it does not answer.'} The node keeps trying."
    return "nobody: the study is settled" if data["settled"] else "the coordinator: the next step of the study"


def _text(data: dict[str, Any]) -> str:
    round_ = f"{data['round']} of {data['rounds']}" if data["round"] is not None else f"- of {data['rounds']}"
    return "\n".join(
        [
            f"study      {data['study']} ({data['title']})",
            f"site       {data['site']}",
            f"agreement  {data['agreement']}",
            f"running    {'yes' if data['running'] else 'no'}",
            f"connected  {'yes' if data['connected'] else 'no'}",
            f"round      {round_}",
            *([f"compared   {data['comparison']}"] if data["comparison"] else []),
            f"awaited    {data['awaited']}",
            *(f"witness    {did}: {why}" for did, why in sorted(data["consent_log"].items())),
        ]
    )
