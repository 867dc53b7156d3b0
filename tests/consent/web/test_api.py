"""The pages' interface against what a stranger may send: no failure of ours, no script, no frame, no second use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from consent_site import Site, make_site, served
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from consent.web.security import Limits, Rate
from consent.web.state import SESSION_COOKIE

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
SCRIPTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}",
    "</title><svg onload=alert(1)>",
    "javascript:alert(1)",
)


def signed_in(site: Site, ref: str = "anna") -> dict[str, str]:
    """The headers of somebody who has opened their invitation."""
    opened = httpx.post(f"{site.address}/invitation", data={"code": site.code(ref)}, headers=SAME_ORIGIN)
    assert opened.status_code == 303
    cookies = "; ".join(each.partition(";")[0] for each in opened.headers.get_list("set-cookie"))
    return {**SAME_ORIGIN, "Cookie": cookies}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(make_site(tmp_path_factory.mktemp("api")), host="127.0.0.1") as site:
        yield site


@pytest.fixture(scope="module")
def person(running: Site) -> dict[str, str]:
    return signed_in(running)


@pytest.fixture(scope="module")
def described(running: Site) -> Any:
    return schemathesis.openapi.from_url(f"{running.address}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_that_is_sent_makes_it_fail_or_break_its_description(case: Any, person: dict[str, str]) -> None:
    answer = case.call(headers=person)
    case.validate_response(answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_name_with_a_script_stays_text(tmp_path: Path, text: str) -> None:
    with served(make_site(tmp_path, name=f"Clinic {text}"), host="127.0.0.1") as site:
        person = signed_in(site, ref=text)
        for path in ("/", "/mine", "/request/research", "/return", f"/{text}"):
            answer = httpx.get(site.address + path, headers=person)
            assert answer.status_code < 500
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
            assert "<svg onload" not in answer.text
            assert "Clinic 49" not in answer.text


def test_no_other_site_can_frame_it_or_run_a_script_in_it(client: httpx.Client) -> None:
    for path in ("/", "/mine", "/nothing-here", "/openapi.json"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy or "sandbox" in policy  # a page, or data alone
        assert "unsafe-" not in policy


def test_a_session_ends_by_itself(site: Site) -> None:
    person = signed_in(site)
    assert httpx.get(f"{site.address}/mine", headers=person).status_code == 200
    site.clock.ahead = timedelta(days=400)
    assert httpx.get(f"{site.address}/mine", headers=person).status_code != 200


def test_of_two_who_open_one_link_at_once_one_gets_in(site: Site) -> None:
    code = site.code("anna")

    def open_it(_: int) -> int:
        sent = httpx.post(f"{site.address}/invitation", data={"code": code}, headers=SAME_ORIGIN)
        return sum(each.startswith(f"{SESSION_COOKIE}=") for each in sent.headers.get_list("set-cookie"))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(open_it, range(8))) == 1


def test_whoever_asks_too_often_waits_and_is_told_how_long(tmp_path: Path) -> None:
    few = Limits(reading=Rate(10**6, 10**6), changing=Rate(10**6, 10**6), opening=Rate(3, 0.01))
    with served(make_site(tmp_path, limits=few), host="127.0.0.1") as site:
        answers = [
            httpx.post(f"{site.address}/invitation", data={"code": "0" * 26}, headers=SAME_ORIGIN) for _ in range(6)
        ]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
