"""An officer and people who answer, for the tests of the officer's pages: everything through the site's own ways in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from html import unescape
from typing import Any

import httpx
from consent_site import Site

from consent.rules.decision import Decision
from consent.rules.receipt import Receipt
from consent.rules.record import sign_record
from consent.web.documents import prepare_answer, take_back
from consent.web.officer_coverage import uses_of
from consent.web.sessions import Role, SignedIn
from consent.web.starter import STARTER
from consent.web.state import Web
from federation.rules.keys import PrivateKey


def web_of(site: Site) -> Web:
    web: Web = site.app.state.web
    return web


def key_of(ref: str) -> PrivateKey:
    """The key of a person's browser, the same each time."""
    return PrivateKey(hashlib.sha256(ref.encode()).digest())


def answer(
    site: Site,
    ref: str,
    *,
    yes: bool = True,
    request: str = STARTER,
    language: str = "en",
    key: PrivateKey | None = None,
) -> Receipt:
    """What a person's browser does: ask for the document, sign it, hand it back."""
    web = web_of(site)
    key = key or key_of(ref)
    notice = site.store.open_request(request)
    assert notice is not None
    who = SignedIn(Role.PERSON, ref, request, site.clock())
    choices = {purpose.key: yes for purpose in notice.asked.purposes}
    prepared = prepare_answer(web, who, did=key.public.did, notice=notice, language=language, choices=choices)
    receipt, _ = take_back(web, who, sign_record(prepared.document, key, created=site.registry.now()))
    return receipt


def decision(site: Site, ref: str, request: str = STARTER) -> Decision:
    """Whether the first purpose of a request is permitted now."""
    notice = site.store.open_request(request)
    assert notice is not None
    (_, use), *_ = uses_of(notice.asked, site.registry.institution.did)
    return site.registry.decide_all(use, site.registry.now(), [ref])[ref]


@dataclass
class Desk:
    """The officer's browser, without its engine: forms are read from the pages that hold them."""

    site: Site
    client: httpx.Client

    def get(self, path: str, **options: Any) -> str:
        answered = self.client.get(path, **options)
        assert answered.status_code == 200, (path, answered.status_code, answered.text[-600:])
        return answered.text

    def post(self, path: str, fields: Any = None, *, status: int = 303, **options: Any) -> httpx.Response:
        answered = self.client.post(path, data=fields or {}, **options)
        assert answered.status_code == status, (path, answered.status_code, words(answered.text)[-900:])
        return answered


def desk_of(site: Site) -> Desk:
    """An officer who has signed in with a one-time link."""
    client = httpx.Client(base_url=site.address, headers={"Sec-Fetch-Site": "same-origin"})
    code = site.officer_invitation().partition("#")[2]
    opened = client.post("/invitation", data={"code": code})
    assert opened.headers["location"] == "/officer"
    # httpx keeps no Secure cookie for http; browsers do on loopback.
    client.headers["Cookie"] = opened.headers["set-cookie"].partition(";")[0]
    return Desk(site, client)


def words(page: str) -> str:
    """A page's text, as somebody reads it."""
    body = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", " ", page)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def fields(page: str) -> dict[str, str]:
    """The named texts and hidden fields of a page's own forms, as a browser would send them unchanged."""
    found: dict[str, str] = {}
    page = page.partition("<main")[2]
    for tag in re.findall(r"<input\b[^>]*>", page):
        attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        if attributes.get("type", "text") in {"text", "hidden"} and "name" in attributes:
            found[attributes["name"]] = unescape(attributes.get("value", ""))
    for name, text in re.findall(r'(?s)<textarea\b[^>]*\bname="([^"]*)"[^>]*>\n?(.*?)</textarea>', page):
        found[name] = unescape(text)
    return found
