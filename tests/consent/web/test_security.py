import httpx
from consent_site import Site


def test_a_stranger_gets_a_page_that_explains_itself(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "Your data, your decision" in answer.text


def test_a_request_from_elsewhere_changes_nothing(site: Site, client: httpx.Client) -> None:
    code = site.code("anna")
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": ""},
    ):
        assert client.post("/invitation", data={"code": code}, headers=headers).status_code == 403
    assert client.post("/invitation", data={"code": code}).status_code == 303
