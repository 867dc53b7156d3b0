"""``accord coordinator``: make a coordinator, run it, see where it stands."""

from typing import Annotated, Any

import typer

from federation.cli.leading import lead
from federation.cli.output import DirOption, JsonOption, emit, group, note
from federation.cli.running import RunningParty, free_port, is_running, last_status, running
from federation.cli.standby import standby
from federation.coordinator.folder import CoordinatorFolder, create_coordinator, open_coordinator, require_role
from federation.errors import OperatorError
from federation.network.addresses import is_websocket
from federation.settings import make_settings

app = group("Run the coordinator: it opens rounds, aggregates, measures value, pays.")

app.command()(standby)

_POLL_S = 0.5


@app.command()
def init(
    folder: DirOption,
    name: Annotated[str, typer.Option("--name", help="A short name for this coordinator.")] = "coordinator",
    listen: Annotated[
        str, typer.Option("--listen", help="Where nodes dial in, as a multiaddress; port 0 lets the system choose.")
    ] = "/ip4/127.0.0.1/tcp/0",
    websocket: Annotated[
        str, typer.Option("--websocket", help="Where it also takes WebSockets, as /ip4/ADDRESS/tcp/PORT/ws.")
    ] = "",
    announce: Annotated[
        list[str] | None, typer.Option("--announce", help="The address that invitations name, if it differs.")
    ] = None,
    as_standby: Annotated[
        bool, typer.Option("--as-standby", help="Make a standby, which takes over from another coordinator.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a coordinator in an empty folder: key, settings, database.

    Example: accord coordinator init --dir coordinator --listen /ip4/0.0.0.0/tcp/4001
    """
    role = "standby" if as_standby else "coordinator"
    settings = make_settings(
        {
            "role": role,
            "name": name,
            "listen": free_port(listen),
            "websocket": websocket,
            "announce": tuple(announce or ()),
        }
    )
    opened = create_coordinator(folder, settings)
    data = {"dir": str(folder), "did": opened.key.public.did, "address": address_of(opened), "name": name}
    emit(
        data,
        as_json=as_json,
        text=f"A {role} lives in {folder}.\n  key      {data['did']}\n  address  {data['address']}\n"
        + ("Next: the plan names it in `failover`." if as_standby else "Next: write a plan with `accord study new`."),
    )


@app.command()
def run(
    folder: DirOption,
    study: Annotated[
        str | None, typer.Option("--study", help="Which study; default: the oldest that is not settled.")
    ] = None,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End when the study is settled and cosigned.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first model; never of noise.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a study until it is settled (and then go on answering). Stop with Ctrl-C; nothing is lost.

    Example: accord coordinator run --dir coordinator
    """
    opened = open_coordinator(folder)
    require_role(opened, "coordinator")
    with running(opened.files, opened.settings) as party:
        chosen = study or _next_study(opened, party)
        if chosen is not None:
            _serve(opened, party, study=chosen, until_settled=until_settled, seed=seed)
    emit(last_status(opened.files), as_json=as_json, text="The coordinator has stopped; nothing is lost.")


@app.command()
def status(
    folder: DirOption,
    study: Annotated[str | None, typer.Option("--study", help="Which study; default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Where the study stands, and who is awaited for what.

    Example: accord coordinator status --dir coordinator
    """
    opened = open_coordinator(folder)
    data = study_status(opened, study) if opened.studies() else {"study": None, "phase": "no study published"}
    data |= {"did": opened.key.public.did, "address": address_of(opened), "running": is_running(opened.files)}
    emit(data, as_json=as_json, text=status_text(data))


def address_of(opened: CoordinatorFolder, *, web: bool = False) -> str:
    """The address that invitations name; ``web``: the first that is a WebSocket's.

    Raises:
        OperatorError: there is no such address.
    """
    settings = opened.settings
    named = (*settings.announce, settings.listen, *([settings.websocket] if settings.websocket else []))
    base = next((address for address in named if is_websocket(address) or not web), None)
    if base is None:
        raise OperatorError(
            "This coordinator names no WebSocket address.",
            remedy='Set `websocket`, and `announce` to what nodes reach, e.g. ["/dns4/study.example.org/tcp/443/wss"].',
        )
    return f"{base}/p2p/{opened.key.public.peer_id}"


def study_status(opened: CoordinatorFolder, study: str | None) -> dict[str, Any]:
    """A study's status from its log, with what the running process adds (who is connected)."""
    from federation.coordinator.membership import Membership
    from federation.coordinator.pausing import paused
    from federation.coordinator.status import awaited, clusters_of, phase, predicted_s

    history = opened.history(study)
    state = history.state
    pause = paused(opened.files.path, state.study)
    invited = Membership(opened.engine, history, b"").invited()
    alive = is_running(opened.files)
    live = last_status(opened.files) if alive else {}
    if live.get("study") not in (None, state.study):
        alive, live = False, {}  # it runs another study
    connected = live.get("connected", [])
    there = [did for did, agreement in state.agreements.items() if agreement.site in connected]
    return {
        "study": state.study,
        "phase": phase(state, pause),
        "round": state.round.number if state.round else len(state.closed),
        "rounds": state.rounds.count,
        "log_size": state.size,
        "invited": {site: "joined" if peer else "not yet" for site, peer in invited.items()},
        "agreements": sorted(agreement.site for agreement in state.agreements.values()),
        "predicted_s": predicted_s(state),
        "awaited": awaited(history, invited=invited, connected=there if alive else None, pause=pause),
        "connected": connected,
        "problems": live.get("problems", {}),
        "clusters": clusters_of(state),
        "settled": state.settled,
        "aborted": state.aborted,
    }


def status_text(data: dict[str, Any]) -> str:
    """A status as a person reads it."""
    lines = [f"study      {data['study'] or '-'}", f"phase      {data['phase']}"]
    if data.get("rounds"):
        lines.append(f"rounds     {data['round']} of {data['rounds']}")
        lines += [f"aborted    {data['aborted']}"] if data.get("aborted") else []
        lines.append(f"connected  {', '.join(data['connected']) or 'nobody'}")
        if data.get("predicted_s") is not None:
            lines.append(f"predicted  {data['predicted_s']:.0f} s from a round's opening to enough updates")
        lines += [f"awaited    {item['site']}: {item['for']}" for item in data["awaited"]] or ["awaited    nobody"]
    lines += [f"as one     {cluster_text(each)}" for each in data.get("clusters", [])]
    lines += [f"problem    {site}: {text}" for site, text in data.get("problems", {}).items()]
    lines.append(f"running    {'yes' if data['running'] else 'no'}")
    return "\n".join(lines)


def cluster_text(cluster: dict[str, Any]) -> str:
    """Who counts as one institution, and why."""
    copies = [", ".join(group) for group in cluster["copies"]]
    why = "they declare one owner" if not copies else f"the same people, or not compared: {'; '.join(copies)}"
    return f"{', '.join(cluster['sites'])} ({why})"


def _next_study(opened: CoordinatorFolder, party: RunningParty) -> str | None:
    """The oldest study that is not settled, else the newest; waits until one is published."""
    while not party.stop.is_set():
        studies = opened.studies()
        for study in studies:
            if not opened.history(study).state.settled:
                return study
        if studies:
            return studies[-1]
        party.show_status({"study": None, "phase": "no study published"})
        party.stop.wait(_POLL_S)
    return None


def _serve(opened: CoordinatorFolder, party: RunningParty, *, study: str, until_settled: bool, seed: int) -> None:
    from federation.coordinator.membership import Membership
    from federation.network.host import Libp2pHost

    history = opened.history(study)
    plan, envelope = opened.plan(study)
    standby = None if plan.failover is None else plan.failover.key
    membership = Membership(opened.engine, history, envelope)
    with Libp2pHost(
        opened.key,
        listen=opened.settings.listen,
        websocket=opened.settings.websocket or None,
        announce=opened.settings.announce,
        allowed=lambda peer: peer == standby or membership.allowed(peer),
    ) as host:
        note(f"Coordinator of {study} at {address_of(opened)}")
        lead(opened, party, host, membership, history, until_settled=until_settled, seed=seed)
