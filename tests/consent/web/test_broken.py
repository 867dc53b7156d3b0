"""A defect of ours is answered with a page like any other, under the same policy; the log gets the error."""

from __future__ import annotations

import httpx
import pytest
from consent_site import Site
from officer_desk import words


def test_a_defect_gets_a_page_and_no_traceback(
    site: Site, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("the cause")

    monkeypatch.setattr(type(site.registry), "head", broken)
    answered = client.get("/healthz", headers={"Accept-Language": "fr"})
    assert answered.status_code == 500
    assert "frame-ancestors 'none'" in answered.headers["content-security-policy"]
    assert '<html lang="fr">' in answered.text
    assert "the cause" not in answered.text
    assert "ZeroDivisionError" not in words(answered.text)
