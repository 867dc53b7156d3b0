"""Settings are written once, read strictly, and documented, each of them."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.settings import PartyFolder, PartySettings, create_settings, load_settings

NODE = PartySettings(role="node", name="cleveland")


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    settings = NODE.model_copy(update={"announce": ("/ip4/192.0.2.1/tcp/4001", "/dns4/node.example.org/tcp/4001")})
    create_settings(tmp_path / "node", settings)
    assert load_settings(tmp_path / "node", {}) == settings


@given(
    epsilon=st.decimals(min_value="0.001", max_value=8, places=3),
    size=st.integers(1, 65536),
    port=st.integers(0, 65535),
)
def test_every_setting_survives_its_text(epsilon: Decimal, size: int, port: int) -> None:
    import tomllib

    settings = PartySettings(
        role="coordinator",
        name="sponsor",
        listen=f"/ip4/127.0.0.1/tcp/{port}",
        lifetime_epsilon=epsilon,
        consent_batch_size=size,
    )
    assert PartySettings.model_validate(tomllib.loads(settings.to_toml())) == settings


def test_consents_may_live_in_a_database_of_their_own(tmp_path: Path) -> None:
    url = "postgresql://accord:s3cret%20word@db.example.org:5433/consent?sslmode=verify-full"
    create_settings(tmp_path, NODE.model_copy(update={"consent_database": url}))
    assert load_settings(tmp_path, {"ACCORD_CONSENT_DATABASE": "postgresql://other/consent"}).consent_database == url
    assert NODE.consent_database == ""


def test_a_party_is_never_overwritten(tmp_path: Path) -> None:
    create_settings(tmp_path, NODE)
    with pytest.raises(OperatorError, match="holds a party already"):
        create_settings(tmp_path, NODE.model_copy(update={"name": "hungary"}))
    assert load_settings(tmp_path, {}).name == "cleveland"


def test_the_environment_wins_for_what_belongs_to_a_machine(tmp_path: Path) -> None:
    create_settings(tmp_path, NODE)
    environ = {
        "ACCORD_LISTEN": "/ip4/0.0.0.0/tcp/4001",
        "ACCORD_ANNOUNCE": "/ip4/192.0.2.1/tcp/4001, /ip4/192.0.2.2/tcp/4001",
        "ACCORD_REQUEST_TIMEOUT_S": "5",
    }
    settings = load_settings(tmp_path, environ)
    assert settings.listen == "/ip4/0.0.0.0/tcp/4001"
    assert settings.announce == ("/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.2/tcp/4001")
    assert settings.request_timeout_s == 5


def test_no_variable_reaches_the_privacy_budget(tmp_path: Path) -> None:
    create_settings(tmp_path, NODE)
    machine = {"listen", "announce", "log_level", "log_format", "health", "proxy", "peer_models", "websocket"}
    environ = {f"ACCORD_{name.upper()}": "7" for name in PartySettings.model_fields if name not in machine}
    settings = load_settings(tmp_path, environ)
    assert (settings.lifetime_epsilon, settings.renyi_order) == (Decimal(3), 8)
    assert settings.lifetime_delta == Decimal("1e-5")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("lifetime_epsilon = 9", "lifetime_epsilon"),
        ("lifetime_epsilon = 0", "lifetime_epsilon"),
        ('listen = "localhost:80"', "listen"),
        ("noise = false", "noise"),
        ('log_level = "loud"', "log_level"),
        ('log_format = "xml"', "log_format"),
        ('health = "9108"', "health"),
        ('health = "0.0.0.0:x"', "health"),
        ('consent_database = "consent.db"', "consent_database"),
        ('consent_database = "mysql://accord@localhost/consent"', "consent_database"),
        ("version = 2", "version"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = PartyFolder(tmp_path).settings
    name = line.partition(" = ")[0]
    kept = [text for text in NODE.to_toml().splitlines() if not text.startswith(f"{name} = ")]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(OperatorError, match=named):
        load_settings(tmp_path, {})


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    PartyFolder(tmp_path).settings.write_text("role = ")
    with pytest.raises(OperatorError, match=r"accord\.toml is not valid TOML"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize(
    "value",
    ["= " + "[" * 5000, "= " + "9" * 5000, "= 1e99999999999999999999", ".a" * 5000 + " = 1"],
    ids=["nested", "digits", "exponent", "dotted"],
)
def test_toml_that_is_too_much_is_named(tmp_path: Path, value: str) -> None:
    PartyFolder(tmp_path).settings.write_text(f"version{value}")
    with pytest.raises(OperatorError, match="not valid TOML"):
        load_settings(tmp_path, {})


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    PartyFolder(tmp_path).settings.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OperatorError, match="not valid TOML"):
        load_settings(tmp_path, {})


def test_an_empty_folder_says_how_to_make_a_party(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="No party lives in") as caught:
        load_settings(tmp_path, {})
    assert "accord node init" in caught.value.remedy


def test_every_setting_is_documented(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert [name for name in PartySettings.model_fields if f"`{name}`" not in page] == []
