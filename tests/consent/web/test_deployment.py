"""What the guide of the consent page gives to copy works: the service's unit, and nginx before a real process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "consent.hospital.example"
ORIGIN = f"https://{HOST}"
OPENINGS = 20


@dataclass(frozen=True)
class Deployed:
    """The page's own port, the proxy's, the proxy's certificate, and a link for the officer."""

    port: int
    proxy_port: int
    certificate: Path
    code: str

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """A browser somewhere else, which reaches the proxy."""
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(
            transport=httpx.HTTPTransport(verify=trusted, local_address=address),
            base_url=f"https://127.0.0.1:{self.proxy_port}",
            headers={"Host": HOST, "Origin": ORIGIN},
        )


def ask(client: httpx.Client, code: str = "0000", **headers: str) -> httpx.Response:
    """Try to open an invitation."""
    return client.post("/invitation", data={"code": code}, headers=headers, extensions={"sni_hostname": HOST})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own for the proxy."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "consent.pem", folder / "consent.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@contextlib.contextmanager
def process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (folder / "errors").open("a") as errors:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=30)


@pytest.fixture
def deployed(tmp_path: Path, repository: Path) -> Iterator[Deployed]:
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        pytest.skip("needs nginx")
    port, proxy_port = free_port(), free_port()
    certificate, private = certify(tmp_path)
    server = (repository / "docs/examples/accord-consent.nginx.conf").read_text(encoding="utf-8")
    for given, here in (
        ("listen 443 ", f"listen 127.0.0.1:{proxy_port} "),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("/etc/ssl/consent.pem", str(certificate)),
        ("/etc/ssl/consent.key", str(private)),
    ):
        assert given in server
        server = server.replace(given, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind}; " for kind in kinds)
    owner = "user root; " if os.geteuid() == 0 else ""
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"{owner}daemon off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {paths}\n{server}}}\n")
    serve = [sys.executable, "-m", "federation.cli", "consent", "serve", "--dir", str(tmp_path / "srv"), "--json"]
    with (
        process([*serve, "--port", str(port), "--origin", ORIGIN], tmp_path) as pages,
        process([nginx, "-e", str(tmp_path / "errors"), "-c", str(conf)], tmp_path),
    ):
        assert pages.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = pages.stdout.readline()
            assert line, (tmp_path / "errors").read_text()
            said += line
        code = json.loads(said)["officer_link"].partition("#")[2]
        deployed = Deployed(port, proxy_port, certificate, code)
        await_proxy(deployed)
        yield deployed


def await_proxy(deployed: Deployed) -> None:
    deadline = time.monotonic() + 20
    with deployed.client("127.0.0.2") as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/healthz", extensions={"sni_hostname": HOST}).status_code == 200:
                    return
            assert time.monotonic() < deadline, "the proxy does not answer"
            time.sleep(0.05)


def test_behind_nginx_people_are_safe_and_each_has_their_own_limit(deployed: Deployed) -> None:
    with deployed.client() as client, deployed.client("127.0.0.9") as other:
        assert ask(client, deployed.code, Origin="https://evil.example").status_code == 403
        assert ask(client, deployed.code, Origin=f"http://{HOST}").status_code == 403
        opened = ask(client, deployed.code)
        assert opened.headers["location"] == "/officer"
        assert opened.headers["strict-transport-security"].startswith("max-age=")
        cookie = opened.headers["set-cookie"]
        assert cookie.startswith("__Host-accord=")
        assert all(part in cookie for part in ("; Secure", "; HttpOnly", "; SameSite=strict"))
        tried = [ask(client, **{"X-Forwarded-For": f"9.9.9.{number}"}).status_code for number in range(OPENINGS)]
        assert (tried[0], tried[-1]) == (404, 429)  # saying another address does not help
        assert ask(other).status_code == 404  # somebody else is not held up by it


def test_whoever_reaches_the_page_past_the_proxy_is_not_believed_about_their_address(deployed: Deployed) -> None:
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{deployed.port}") as client:
        client.headers.update({"Host": HOST, "Origin": ORIGIN})
        tried = [ask(client, **{"X-Forwarded-For": f"9.9.9.{number}"}).status_code for number in range(OPENINGS + 1)]
    assert (tried[0], tried[-1]) == (404, 429)


def test_the_unit_is_one_that_systemd_takes_and_starts_the_page(tmp_path: Path, repository: Path) -> None:
    unit = (repository / "docs/examples/accord-consent.service").read_text(encoding="utf-8")
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program, *arguments = start.removeprefix("ExecStart=").split()
    shown = subprocess.run(
        [sys.executable, "-m", "federation.cli", *arguments[:2], "--help"], capture_output=True, text=True, check=True
    )
    assert all(word in shown.stdout for word in arguments if word.startswith("--"))
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip("needs systemd-analyze")
    copy = tmp_path / "accord-consent.service"
    copy.write_text(unit.replace(program, sys.executable))
    found = subprocess.run([checker, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    "wrong", [["--proxy", "10.0.0.9"], ["--origin", ORIGIN, "--proxy", "the proxy"], ["--origin", "consent.example"]]
)
def test_a_proxy_that_cannot_be_meant_is_refused_before_anything_is_made(tmp_path: Path, wrong: list[str]) -> None:
    command = [sys.executable, "-m", "federation.cli", "consent", "serve", "--dir", str(tmp_path / "srv"), *wrong]
    refused = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "what to do:" in refused.stderr
    assert not (tmp_path / "srv").exists()


def test_no_link_that_opens_something_goes_into_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")  # systemd sets it where it writes the journal
    serve = [sys.executable, "-m", "federation.cli", "consent", "serve", "--dir", str(tmp_path / "srv"), "--port", "0"]
    with process(serve, tmp_path) as pages:
        assert pages.stdout is not None
        lines = [pages.stdout.readline() for _ in range(3)]
    assert "The consent pages are at" in lines[0]
    assert "`accord consent officer`" in lines[1]
    assert not any("/invitation#" in line for line in lines)
