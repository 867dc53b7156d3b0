"""``accord coordinator standby``: follow another coordinator's study, and take its place when it is gone for good."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from federation.cli.leading import lead
from federation.cli.output import DirOption, JsonOption, emit, note
from federation.cli.running import RunningParty, last_status, running
from federation.coordinator.folder import (
    AskedOnDisk,
    CoordinatorFolder,
    keep_followed,
    open_coordinator,
    require_role,
)
from federation.errors import OperatorError, UnavailableError
from federation.storage.database import read

if TYPE_CHECKING:
    from federation.coordinator.history import StudyHistory
    from federation.network.host import Libp2pHost

_TURN_S: Final = 0.5
_CONNECT_S_MAX: Final = 30.0


def standby(
    folder: DirOption,
    of: Annotated[
        str | None,
        typer.Option("--of", help="The first time: the coordinator's address, from its `status`.", show_default=False),
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Which study; default: the newest followed.")] = None,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End when the study is settled and cosigned.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow a study whose plan names this standby; take over when its coordinator was silent for the plan's time.

    Run it all the time, on another machine than the coordinator's. It holds the sponsor's validation set.

    Example: accord coordinator standby --dir standby --of /dns4/coordinator.example/tcp/4001/p2p/12D3K...
    """
    opened = open_coordinator(folder)
    require_role(opened, "standby")
    with running(opened.files, opened.settings) as party:
        if of is not None:
            _begin_when_there(opened, party, of)
        elif not opened.studies():
            raise OperatorError(
                "This standby follows nobody yet.", remedy="Name the coordinator's address once: --of ADDRESS."
            )
        if opened.studies():
            _follow(opened, party, study, until_settled=until_settled)
    emit(last_status(opened.files), as_json=as_json, text="The standby has stopped; nothing is lost.")


def _begin_when_there(opened: CoordinatorFolder, party: RunningParty, address: str) -> None:
    """Begin to follow as soon as the coordinator answers; where a study is followed already, it may be away."""
    told = ""
    while not party.stop.is_set():
        try:
            return _begin(opened, address)
        except UnavailableError as error:
            if opened.studies():
                return None
            if told != error.message:
                note(f"The coordinator is awaited: {error.message}")
            told = error.message
        party.stop.wait(_TURN_S)
    return None


def _begin(opened: CoordinatorFolder, address: str) -> None:
    """Fetch plan and validation set from the coordinator; a study that is known already stays as it is."""
    from federation.coordinator.replication import ask, fetch_plan, fetch_validation
    from federation.network.host import Libp2pHost
    from federation.rules.study import open_plan

    with Libp2pHost(opened.key, listen=None) as host:
        coordinator = host.connect(address, timeout_s=_CONNECT_S_MAX)
        reply = ask(host, coordinator)
        envelope = fetch_plan(host, coordinator, reply, opened.blobs)
        plan, _ = open_plan(envelope, signer=coordinator)
        if reply.validation is None:
            raise OperatorError(
                "This coordinator gives no validation set to a standby.", remedy="Give the address of the coordinator."
            )
        validation = fetch_validation(host, coordinator, reply.validation, opened.sealed, plan)
    keep_followed(opened, envelope=envelope, coordinator=coordinator, address=address, validation=validation)


def _follow(opened: CoordinatorFolder, party: RunningParty, study: str | None, *, until_settled: bool) -> None:
    from federation.coordinator.membership import Membership
    from federation.network.host import Libp2pHost

    history = opened.history(study)
    name, coordinator = history.state.study, history.state.coordinator
    _, envelope = opened.plan(name)
    membership = Membership(opened.engine, history, envelope)
    with Libp2pHost(
        opened.key,
        listen=opened.settings.listen,
        announce=opened.settings.announce,
        allowed=lambda peer: peer == coordinator or membership.allowed(peer),
    ) as host:
        party.show_address(host.addresses())
        note(f"Standby of {name} at {opened.address}")
        host.keep_connected(_address(opened, name))
        leads = _until_leading(opened, party, host, history, until_settled=until_settled)
        if leads:
            lead(opened, party, host, membership, history, until_settled=until_settled)


def _until_leading(
    opened: CoordinatorFolder,
    party: RunningParty,
    host: "Libp2pHost",
    history: "StudyHistory",
    *,
    until_settled: bool,
) -> bool:
    """Follow until this standby leads (True), is stopped, or has seen the settlement become final (False)."""
    from federation.coordinator.standby import Standby
    from federation.coordinator.status import awaited_cosignatures
    from federation.rules.checkpoint import finality_quorum

    follower = Standby(
        exchange=host,
        history=history,
        blobs=opened.blobs,
        sealed=opened.sealed,
        asked=AskedOnDisk(opened, history.state.study),
    )
    follower.serve()
    while not party.stop.is_set():
        now = follower.turn()
        party.show_status(follower.status(now))
        if now == "leading":
            return True
        state = history.state
        if until_settled and state.settled and state.began is None:
            witnesses = len(state.witnesses)
            if witnesses - len(awaited_cosignatures(history)) >= finality_quorum(witnesses):
                return False
        party.stop.wait(_TURN_S)
    return False


def _address(opened: CoordinatorFolder, study: str) -> str:
    from federation.coordinator.tables import FollowedStudy

    with read(opened.engine) as session:
        return session.get_one(FollowedStudy, study).address
