"""An institution's side of a market: seal a price, and open it once every sealed price is listed.

The nonce and the price are in the database before the sealed price leaves, so that it can be opened after any crash. A
price that was sealed is not changed, and it is opened for one list alone: whoever signed two lists is found out here.
"""

import secrets
from datetime import datetime

from sqlalchemy import Engine
from sqlmodel import col, select

from clients.storage import OwnOffer
from federation.errors import OperatorError, PeerError
from federation.rules.documents import open_signed
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.offers import (
    NONCE_BYTES,
    OpenedCall,
    RevealedPrice,
    SealedList,
    SealedPrice,
    commitment,
    open_call,
    open_list,
)
from federation.storage.database import read, write


def seal(
    engine: Engine, key: PrivateKey, data: bytes, *, price: int, coordinator: PublicKey, now: datetime
) -> tuple[OpenedCall, bytes]:
    """Seal a price for a call; the same price again is the same document.

    Args:
        engine: the node's database.
        key: the institution's.
        data: the signed call.
        price: micro-credits.
        coordinator: whose call it must be.
        now: this machine's time.

    Returns:
        the call, and the signed sealed price.

    Raises:
        OperatorError: the time has passed, the institution is not called, the price is none, or another was sealed.
        PeerError: the call does not verify.
    """
    call = open_call(data, signer=coordinator)
    if key.public.did not in call.candidates:
        raise OperatorError(
            f"The call {call.id} is not for this institution ({key.public.did}).",
            remedy="Give the coordinator the did:key of `accord node status`, and ask for a call that names it.",
        )
    with write(engine) as session:
        before = session.get(OwnOffer, call.hash)
        if before is not None:
            if before.price != price:
                raise OperatorError(
                    f"{before.price} micro-credits are sealed for {call.id} already, and a sealed price stays.",
                    remedy="Name that price again to get the file again.",
                )
            return call, before.sealed
        if now >= parse_instant(call.document.seal_until):
            raise OperatorError(
                f"Sealed prices for {call.id} were taken until {call.document.seal_until}.",
                remedy="Ask the coordinator for a new call.",
            )
        nonce = secrets.token_bytes(NONCE_BYTES)
        value = commitment(call=call.hash, party=key.public.did, price=price, nonce=nonce)
        sealed = SealedPrice(call=call.hash, commitment=value).sign(key).to_bytes()
        session.add(
            OwnOffer(
                call=call.hash,
                document=data,
                price=price,
                nonce=nonce.hex(),
                sealed=sealed,
                made_at=format_instant(now),
            )
        )
    return call, sealed


def reveal(engine: Engine, key: PrivateKey, data: bytes, *, now: datetime) -> tuple[OpenedCall, int, bytes]:
    """Open the price that was sealed, for the list of all sealed prices; for the same list again the same document.

    Returns:
        the call, the price in micro-credits, and the signed opening.

    Raises:
        OperatorError: nothing was sealed for this call, or the time has passed.
        PeerError: the list does not verify, leaves this institution's sealed price out or changes it, or it is another
            list than the one that the price was opened for.
    """
    with write(engine) as session:
        own = session.get(OwnOffer, open_signed(SealedList, data)[0].call)
        if own is None:
            raise OperatorError(
                "This institution has sealed no price for the call of this list.",
                remedy="Check --dir; `accord market show --dir DIR` shows what it has sealed.",
            )
        call = open_call(own.document)
        sealed = open_list(data, call)
        if own.opened:
            if own.sealed_list != data:
                raise PeerError(
                    f"The coordinator has signed two lists of sealed prices for {call.id}; this is not the one that "
                    "the price was opened for.",
                    remedy="Keep both files: they prove that offers were added or taken away. Tell the others.",
                )
            return call, own.price, own.opened
        if sealed.envelopes.get(key.public.did) != own.sealed:
            raise PeerError(
                f"The list of sealed prices for {call.id} does not hold the one that this institution made.",
                remedy="Show nothing. Ask the coordinator why; `accord market offer` gives the sealed price again.",
            )
        if now >= parse_instant(call.document.open_until):
            raise OperatorError(
                f"Sealed prices for {call.id} could be opened until {call.document.open_until}.",
                remedy="Ask the coordinator for a new call.",
            )
        document = RevealedPrice(call=call.hash, sealed_list=sealed.hash, price=own.price, nonce=own.nonce)
        own.opened = document.sign(key).to_bytes()
        own.sealed_list = data
        session.add(own)
        return call, own.price, own.opened


def own_offers(engine: Engine) -> list[OwnOffer]:
    """Everything that this institution has offered, oldest first."""
    with read(engine) as session:
        return list(session.exec(select(OwnOffer).order_by(col(OwnOffer.made_at), col(OwnOffer.call))))
