"""Whoever was signed out is told so, and that nothing was lost; a stranger is not."""

from __future__ import annotations

from datetime import timedelta

import httpx
from consent_site import Site
from officer_desk import words

from consent.web.sessions import Role

SAID = "You have been signed out"


def test_a_session_that_ended_is_explained_where_it_leads(site: Site, client: httpx.Client) -> None:
    assert SAID not in words(client.get("/return").text)
    token, _ = site.sessions.begin(Role.PERSON, "anna")
    client.headers["Cookie"] = f"__Host-accord={token}"
    assert SAID not in words(client.get("/return").text)
    site.clock.ahead = timedelta(minutes=31)
    left = client.get("/mine")
    assert (left.status_code, left.headers["location"]) == (303, "/return")
    assert SAID in words(client.get("/return").text)
