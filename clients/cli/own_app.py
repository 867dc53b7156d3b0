"""``accord app``: run a Flower app of one's own, unchanged, on data that its owner licensed for this program."""

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.apps.project import Project, parse_settings, read_project
from clients.apps.release import PURPOSE_DEFAULT, Limits, Releases, Terms
from clients.data.dataset import find_dataset
from clients.storage import AppRelease
from federation.cli.output import DirOption, JsonOption, emit, group, interactive, note
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules.keys import PublicKey

if TYPE_CHECKING:
    from clients.folder import NodeFolder
    from federation.network.exchange import Exchange

app = group("Run a Flower app of your own on data whose owner licensed it for that.")

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The app's project, with its pyproject.toml.", show_default=False)
]
_POLL_S = 0.5
_REPLIES_MAX = 8  # of an app they hold whole models


@app.command("hash")
def hash_project(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Tell the hash of an app's files: what an owner's licence names, and an institution approves.

    Example: accord app hash ./windapp
    """
    project = read_project(folder)
    data = {
        "code_hash": project.code_hash,
        "files": sorted(project.files),
        "clientapp": project.client_app,
        "serverapp": project.server_app,
        "config": dict(project.config),
    }
    lines = [project.code_hash, *(f"  {len(project.files[name]):>9} {name}" for name in sorted(project.files))]
    emit(data, as_json=as_json, text="\n".join(lines))


@app.command()
def approve(
    *,
    folder: FolderArgument,
    directory: DirOption,
    coordinator: Annotated[
        str, typer.Option("--coordinator", help="Whose messages it answers: address with peer id.", show_default=False)
    ],
    dataset: Annotated[str | None, typer.Option("--dataset", help="Which data set it sees; default: the only.")] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="What for (DUO); the licence must cover it.")] = (
        PURPOSE_DEFAULT
    ),
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="name=value for its node_config; may be repeated.")
    ] = None,
    memory_mib: Annotated[int, typer.Option("--memory-mib", min=256, help="Memory for one message.")] = 2048,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86400, help="Time for one message.")] = 600,
    disk_mib: Annotated[int, typer.Option("--disk-mib", min=1, help="Temporary files of one message.")] = 256,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Release one registered data set to one app, after reading what that means.

    Example: accord app approve ./windapp --dir station --coordinator /ip4/192.0.2.1/tcp/4001/p2p/12D3K...
    """
    from clients.folder import open_node_folder

    project = read_project(folder)
    if not project.client_app:
        raise OperatorError(f"{folder} has no ClientApp to run here.", remedy="Name it in its pyproject.toml.")
    opened = open_node_folder(directory)
    entry = find_dataset(opened.engine, dataset)
    releases = _releases(opened)
    releases.check(project.code_hash, entry, purpose)
    terms = Terms(
        coordinator=_peer_of(coordinator),
        address=coordinator,
        purpose=purpose,
        limits=Limits(memory_mib=memory_mib, seconds=seconds, disk_mib=disk_mib),
        settings=parse_settings(setting or []),
    )
    if not yes:
        _ask(_meaning(project, entry.name, entry.path, terms))
    release = releases.approve(project.code_hash, entry.name, terms)
    emit(
        release.model_dump(),
        as_json=as_json,
        text=f"Released {entry.name!r} to the app {project.code_hash}.\n"
        f"Next: `accord app serve {folder} --dir {directory}`. To end it: `accord app revoke HASH --dir {directory}`.",
    )


@app.command("list")
def list_releases(directory: DirOption, as_json: JsonOption = False) -> None:
    """List what was released to which app, and how much has left.

    Example: accord app list --dir station
    """
    from clients.folder import open_node_folder

    rows = _releases(open_node_folder(directory)).listing()
    data = [{**release.model_dump(), "replies": count, "bytes": size} for release, count, size in rows]
    text = "\n".join(_line(release, count, size) for release, count, size in rows) or "Nothing is released to any app."
    emit({"releases": data}, as_json=as_json, text=text)


@app.command()
def revoke(
    code_hash: Annotated[str, typer.Argument(metavar="HASH", help="The app's hash, as `accord app list` shows it.")],
    directory: DirOption,
    as_json: JsonOption = False,
) -> None:
    """Take a release back: the app's next message, and what it is computing now, are refused.

    Example: accord app revoke 41a2c2bc... --dir station
    """
    from clients.folder import open_node_folder

    count = _releases(open_node_folder(directory)).revoke(code_hash)
    if not count:
        raise OperatorError(
            f"Nothing is released to {code_hash[:64]}.", remedy="Give the whole hash, as `accord app list` shows it."
        )
    emit(
        {"code_hash": code_hash, "revoked": count},
        as_json=as_json,
        text="Taken back. What has left cannot be called back.",
    )


@app.command()
def serve(folder: FolderArgument, directory: DirOption, as_json: JsonOption = False) -> None:
    """Answer the coordinator's messages with a released app until stopped; each is run in a sandbox of its own.

    Example: accord app serve ./windapp --dir station
    """
    from clients.folder import open_node_folder
    from federation.cli.running import running

    project = read_project(folder)
    opened = open_node_folder(directory)
    releases = _releases(opened)
    release = releases.standing(project.code_hash)
    releases.data(release)
    coordinator = PublicKey.from_did(release.coordinator)
    with running(opened.files, opened.settings) as party:
        from clients.cli.dialling import host_of
        from clients.flower.own_app import OwnApp
        from clients.flower.runtime import FlowerRuntime, context_for

        own = OwnApp(folder, project.code_hash, releases, coordinator=coordinator, home=opened.files.path)
        with (
            host_of(opened, coordinator) as host,
            FlowerRuntime(host, coordinator, own, context_for(host), replies_max=_REPLIES_MAX) as runtime,
        ):
            host.keep_connected(release.address)
            note(f"serves the app {project.code_hash[:12]} on {release.dataset}")
            while not party.stop.wait(_POLL_S):
                connected = coordinator in host.connected()
                party.show_status(
                    {"app": project.code_hash, "connected": connected, "busy": runtime.busy(sending=connected)}
                )
    emit({"app": project.code_hash}, as_json=as_json, text="The app is served no more.")


@app.command()
def run(
    folder: FolderArgument,
    directory: DirOption,
    node: Annotated[
        list[str], typer.Option("--node", help="did:key of an institution that serves it; repeat.", show_default=False)
    ],
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="name=value for the ServerApp's run_config; may be repeated.")
    ] = None,
    wait_s: Annotated[float, typer.Option("--wait-s", min=0, help="How long to wait for every node.")] = 300.0,
    as_json: JsonOption = False,
) -> None:
    """Run an app's own ServerApp here, with institutions that serve its ClientApp. It is not confined: it is yours.

    No noise, no budget, no log, no reward: none of what a study promises holds for this.

    Example: accord app run ./windapp --dir coordinator --node did:key:z6Mk... --node did:key:z6Mr...
    """
    from federation.cli.running import running
    from federation.coordinator.folder import open_coordinator

    project = read_project(folder)
    if not project.server_app:
        raise OperatorError(f"{folder} has no ServerApp to run here.", remedy="Name it in its pyproject.toml.")
    config = {**project.config, **parse_settings(setting or [])}
    nodes = {PublicKey.from_did(did) for did in node}
    opened = open_coordinator(directory)
    with running(opened.files, opened.settings) as party:
        from federation.flower.own_app import AppGrid, run_server_app
        from federation.network.host import Libp2pHost

        with Libp2pHost(
            opened.key,
            listen=opened.settings.listen,
            announce=opened.settings.announce,
            allowed=nodes.__contains__,
        ) as host:
            party.show_address(host.addresses())
            grid = AppGrid(host, project.code_hash)
            _await(nodes, host, wait_s, stopped=party.stop.wait)
            with contextlib.redirect_stdout(sys.stderr):  # what the app prints is not this command's result
                run_server_app(folder, project.server_app, grid, config)
    emit(
        {"app": project.code_hash, "run": grid.run.run_id, "nodes": sorted(node)},
        as_json=as_json,
        text=f"The app {project.code_hash[:12]} has ended. Its result is wherever it writes it.",
    )


def _releases(opened: "NodeFolder") -> Releases:
    from federation.coordinator.history import system_clock

    return Releases(opened.engine, opened.registry, opened.key.public, system_clock)


def _peer_of(address: str) -> PublicKey:
    try:
        return PublicKey.from_peer_id(address.rpartition("/p2p/")[2])
    except PeerError as error:
        raise OperatorError(
            f"--coordinator: {error.message}",
            remedy="Give the address that `accord coordinator status` shows; it ends in /p2p/ and a peer id.",
        ) from error


def _meaning(project: Project, name: str, path: str, terms: Terms) -> str:
    limits = terms.limits
    return "\n".join(
        [
            "You are about to let a program that is not Accord's read a data set and send away what it makes of it.",
            "",
            f"  program     {project.code_hash} ({len(project.files)} files)",
            f"  data set    {name}: {path}",
            f"  sends to    {terms.coordinator.did}",
            f"  purpose     {terms.purpose}; the owner's licence covers it, without a bound",
            f"  one message {limits.memory_mib} MiB of memory, {limits.seconds} s, {limits.disk_mib} MiB of files",
            "",
            "Accord adds no noise to its answers and counts no budget: assume that it can send the rows themselves.",
            "It gets no network, no other file and no other process of this machine. Nothing is paid for it.",
            "With your yes you state that no row of this data set is about a person.",
        ]
    )


def _ask(meaning: str) -> None:
    """Show what is approved and wait for a yes.

    Raises:
        OperatorError: nobody is there to ask, or the answer is no.
    """
    if not (sys.stdin.isatty() and interactive()):
        raise OperatorError(
            "Nobody is here to answer.", remedy="Run the command in a terminal, or give --yes if it is decided."
        )
    sys.stderr.write(meaning + "\n\n")
    if not typer.confirm("Release the data set to this program?", err=True):
        raise OperatorError("Nothing was released.", remedy="Run the command again when it is decided.")


def _line(release: AppRelease, count: int, size: int) -> str:
    state = f"taken back {release.revoked_at}" if release.revoked_at else "stands"
    return (
        f"{release.code_hash}  {release.dataset}: released {release.released_at}, {state}; "
        f"{count} replies, {size} bytes, to {release.coordinator}"
    )


def _await(nodes: set[PublicKey], host: "Exchange", wait_s: float, *, stopped: Any) -> None:
    """Wait until every node is there.

    Raises:
        UnavailableError: some are not, after ``wait_s`` seconds or when the command is stopped.
    """
    end = time.monotonic() + wait_s
    while missing := nodes - host.connected():
        if time.monotonic() >= end or stopped(_POLL_S):
            raise UnavailableError(
                f"Not there: {', '.join(sorted(peer.did for peer in missing))}.",
                remedy="Ask their operators whether `accord app serve` runs, or leave them out.",
            )
