"""A receipt says what was answered, the noes too, in the reader's language."""

from __future__ import annotations

import httpx
from consent_site import Site
from officer_desk import answer, words

from consent.web.sessions import Role
from consent.web.starter import STARTER


def test_a_receipt_lists_each_answer(site: Site, client: httpx.Client) -> None:
    receipt = answer(site, "anna", yes=False)
    token, _ = site.sessions.begin(Role.PERSON, "anna", STARTER)
    client.headers.update({"Cookie": f"__Host-accord={token}", "Accept-Language": "fr"})
    page = words(client.get(f"/receipt/{receipt.record}").text)
    assert "Vos réponses Non · Recherche médicale Non · Recherche sur l’origine des personnes" in page
