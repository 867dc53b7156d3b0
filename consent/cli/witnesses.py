"""``accord consent witnesses``: who cosigns the institution's consent log, and how many must before a yes binds."""

from typing import Annotated

import typer

from consent.registry import Registry
from federation.cli.output import DirOption, JsonOption, emit
from federation.errors import OperatorError, PeerError
from federation.rules.keys import PublicKey


def witnesses(
    *,
    folder: DirOption,
    add: Annotated[list[str] | None, typer.Option("--add", help="A witness's did:key; may be repeated.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="One that is none any more.")] = None,
    quorum: Annotated[
        int | None, typer.Option("--quorum", min=0, help="How many must cosign; 0: a yes binds from its receipt.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show, or change, who cosigns the consent log. A no, and a withdrawal, wait for nobody.

    With a quorum, a yes binds once that many witnesses have cosigned the log that holds it. A running node asks them.
    """
    from consent.cli.consent import _registry  # the group, which this command belongs to

    registry, _ = _registry(folder)
    named, needed = registry.witnesses()
    if add or remove or quorum is not None:
        _change(registry, {_key(did) for did in add or ()}, {_key(did) for did in remove or ()}, quorum)
        named, needed = registry.witnesses()
    dids = sorted(key.did for key in named)
    lines = [f"{needed} of these {len(dids)} must cosign before a yes binds:" if needed else "A yes binds at once."]
    emit(
        {"witnesses": dids, "quorum": needed},
        as_json=as_json,
        text="\n".join([*lines, *(f"  {did}" for did in dids)]),
    )


def _change(registry: Registry, added: set[PublicKey], removed: set[PublicKey], quorum: int | None) -> None:
    named, needed = registry.witnesses()
    wanted = (named | added) - removed
    if registry.institution in wanted:
        raise OperatorError("An institution is no witness of its own log.", remedy="Name other parties.")
    registry.set_witnesses(sorted(key.did for key in wanted), needed if quorum is None else quorum)


def _key(did: str) -> PublicKey:
    try:
        return PublicKey.from_did(did)
    except PeerError as error:
        raise OperatorError(error.message, remedy="Copy it from the other node's `accord node status`.") from error
