"""What the pages' scripts ask: a document to sign, taking it back signed, passkeys, coming back with a key.

Every answer is JSON, every error is ``{"error": {"code", "message", "remedy"}}``. All of it needs a session, but coming
back, which makes one.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from consent.rules.record import RECORD_BYTES_MAX
from consent.rules.signature import verify
from consent.web.documents import Prepared, document_hash, prepare_answer, prepare_withdrawal, take_back
from consent.web.pages import language_of
from consent.web.passkeys import check_gesture, gesture_options, keep_gesture, keep_passkey
from consent.web.sessions import Role, SignedIn
from consent.web.state import Web, person, public_origin, remember, session_token, web_of
from federation.errors import ConsentError, UnavailableError
from federation.rules.keys import PublicKey
from federation.rules.wire import Slug

_RETURN: Final = "return"
_RETURN_TAG: Final = "accord-consent-return"

Person = Annotated[SignedIn, Depends(person)]
Did = Annotated[str, StringConstraints(pattern=r"^did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{40,48}$", max_length=80)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorDetail(BaseModel):
    """What happened, and what to do about it."""

    code: str
    message: str
    remedy: str


class ErrorAnswer(BaseModel):
    """Every error of these endpoints."""

    error: ErrorDetail


class AnswerBody(_Body):
    """The answers to one version of a request: true is yes. ``ward``: a key for whom a guardian signs first."""

    did: Did
    request: Slug
    version: Annotated[int, Field(ge=1, le=10**6)]
    choices: Annotated[dict[Slug, bool], Field(min_length=1, max_length=16)]
    ward: Did | None = None


class KeyBody(_Body):
    """The person's key."""

    did: Did


class ToSign(BaseModel):
    """What the person's key is asked to sign: SHA-256(JCS(config)) || SHA-256(JCS(document))."""

    document: dict[str, Any]
    config: dict[str, Any]
    hash: Digest
    action: str


class SignedBody(_Body):
    """The signed record as JSON text; ``gesture``: a passkey's answer to the document's hash, if one was made."""

    record: Annotated[str, StringConstraints(min_length=2, max_length=RECORD_BYTES_MAX)]
    gesture: dict[str, Any] | None = None


class Stored(BaseModel):
    """The record is stored: where its receipt is."""

    record: Digest
    action: str
    receipt: str


class HashBody(_Body):
    """A document that was handed out, by its hash."""

    hash: Digest


class GestureOptions(BaseModel):
    """What to pass to ``navigator.credentials``: ``create`` first, or ``get``."""

    kind: str
    options: dict[str, Any]


class PasskeyBody(_Body):
    """A passkey that was just made."""

    credential: dict[str, Any]


class Challenge(BaseModel):
    """A text to be signed within ten minutes, once: ``tag``, origin, institution and challenge, a line each."""

    message: str
    challenge: str


class ReturnBody(_Body):
    """The signature over a challenge's message, hexadecimal."""

    did: Did
    challenge: Annotated[str, StringConstraints(min_length=20, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class Went(BaseModel):
    """Where to go on."""

    path: str


_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "What was sent cannot be used",
        401: "Nobody is signed in",
        403: "The request came from elsewhere",
        404: "There is no such thing",
        409: "Refused: nothing was changed",
        413: "Too large",
        422: "Not in the right form",
        429: "Too many requests",
    }.items()
}
router = APIRouter(prefix="/api", responses=_ERRORS)


@router.post("/prepare")
def prepare(request: Request, body: AnswerBody, who: Person) -> ToSign:
    """The document for a person's answers, to be signed with their key."""
    web = web_of(request)
    notice = web.store.open_request(body.request)
    if notice is None or notice.version != body.version:
        raise ConsentError("The request has changed in the meantime.", remedy="Open it again and read it anew.")
    language = notice.asked.language(language_of(request))
    prepared = prepare_answer(
        web, who, did=body.did, notice=notice, language=language, choices=body.choices, ward=body.ward
    )
    return _to_sign(prepared)


@router.post("/prepare-withdrawal")
def prepare_to_withdraw(request: Request, body: KeyBody, who: Person) -> ToSign:
    """The document of a withdrawal, to be signed with the person's key; withdrawing works without one too."""
    return _to_sign(prepare_withdrawal(web_of(request), who, did=body.did))


@router.post("/sign")
def sign(request: Request, body: SignedBody, who: Person) -> Stored:
    """Take back what was signed: verified, stored, and answered with a receipt."""
    web = web_of(request)
    data = body.record.encode("utf-8")
    evidence = None if body.gesture is None else check_gesture(request, who, body.gesture, document_hash(data))
    receipt, _ = take_back(web, who, data)
    if evidence is not None:
        keep_gesture(web, evidence, receipt.record)
    return Stored(record=receipt.record, action=receipt.action.value, receipt=f"/receipt/{receipt.record}")


@router.post("/passkey")
def passkey(request: Request, body: HashBody, who: Person) -> GestureOptions:
    """What the browser should do for a gesture that confirms this document."""
    return GestureOptions.model_validate(gesture_options(request, who, body.hash))


@router.post("/passkey/register")
def register_passkey(request: Request, body: PasskeyBody, who: Person) -> Went:
    """Keep a passkey that was just made."""
    keep_passkey(request, who, body.credential)
    return Went(path="/api/passkey")


@router.post("/challenge")
def challenge(request: Request, body: KeyBody) -> Challenge:
    """A text for somebody to sign who was here before; it does not tell whether the key is known."""
    web = web_of(request)
    token = web.sessions.challenge(_RETURN, body.did)
    return Challenge(message=_message(request, token), challenge=token)


@router.post("/return")
def come_back(request: Request, response: Response, body: ReturnBody) -> Went:
    """Sign in with a key that signed here before."""
    web = web_of(request)
    message = _message(request, body.challenge).encode("utf-8")
    proven = verify(PublicKey.from_did(body.did).raw, bytes.fromhex(body.signature), message)
    fresh = web.sessions.answered(body.challenge, _RETURN, body.did)
    ref = _speaks_for(web, body.did) if proven and fresh else None
    if ref is None:
        raise UnavailableError("This key is not known here.", remedy="Ask the institution for a new link.")
    web.sessions.end(session_token(request))
    token, who = web.sessions.begin(Role.PERSON, ref)
    remember(response, token, who, web.clock())
    return Went(path="/mine")


def _speaks_for(web: Web, did: str) -> str | None:
    """Under which name somebody with this key goes on: their own, or that of whom they are guardian of."""
    guarded = web.guardians.ref_of(did)
    if guarded is not None:
        return guarded
    own = web.store.ref_of(did)
    return own if own is None or web.guardians.of(own) is None else None


def _message(request: Request, token: str) -> str:
    return "\n".join((_RETURN_TAG, public_origin(request), web_of(request).registry.institution.did, token))


def _to_sign(prepared: Prepared) -> ToSign:
    return ToSign(document=prepared.document, config=prepared.config, hash=prepared.hash, action=prepared.action.value)
