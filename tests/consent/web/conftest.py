"""A site for each test, asked in process; and a client that says where it comes from, as browsers do."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from consent_site import Site, make_site, served


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(make_site(tmp_path), host="127.0.0.1") as running:
        yield running


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.address, headers={"Sec-Fetch-Site": "same-origin"}) as made:
        yield made
