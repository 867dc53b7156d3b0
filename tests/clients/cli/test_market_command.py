"""``accord market`` from the call to the study, through the commands alone; and everything that is refused."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hand_made import copied, make_node, put_into_study

from clients.cli.market import microcredits
from clients.folder import open_node_folder
from clients.offering import own_offers
from federation.cli.main import main
from federation.coordinator.folder import open_coordinator
from federation.coordinator.market import announce, call_from_toml, document_of
from federation.coordinator.market import state as market_state
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.offers import RevealedPrice, SealedList, SealedPrice, open_call, open_outcome
from federation.rules.study import plan_from_toml

Output = pytest.CaptureFixture[str]
SITES = ("ash", "birch", "cedar")
WORTHS = (100, 200, 100)


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: Output, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def said(capsys: Output, *arguments: str | Path, code: int = 0) -> str:
    """What is said to a person: the result, or the error, which has a remedy."""
    capsys.readouterr()
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert code in (0, 3) or (out == "" and "what to do: " in err)
    return out + err


@dataclass(frozen=True)
class Place:
    """A coordinator and three nodes; the documents travel through ``folder``."""

    folder: Path
    registry: Path

    @property
    def key(self) -> str:
        return open_coordinator(self.registry).key.public.did

    def node(self, site: str) -> Path:
        return self.folder / site

    def did(self, site: str) -> str:
        return open_node_folder(self.node(site)).key.public.did

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def call_toml(self, *, seal_days: float = 3, open_days: float = 6, **changes: str) -> Path:
        now = datetime.now(UTC)
        fields = {
            "version": "1",
            "budget_microcredits": "1_000_000_000",
            "worth": '"Beds, from the annual reports of 2025."',
            "seal_until": f'"{format_instant(now + timedelta(days=seal_days))}"',
            "open_until": format_instant(now + timedelta(days=open_days)),
            **changes,
        }
        lines = [f"{name} = {value}" for name, value in fields.items()]
        for site, worth in zip(SITES, WORTHS, strict=True):
            lines += ["[[candidates]]", f'site = "{site}"', f'did = "{self.did(site)}"', f"worth = {worth}"]
        path = self.folder / "call.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def call(self, **changes: Any) -> Path:
        plan = self.folder / "plan.toml"
        arguments = ("--plan", plan, "--dir", self.registry, "--out", self.file("call"))
        assert run("market", "call", self.call_toml(**changes), *arguments) == 0
        return self.file("call")

    def offer(self, site: str, price: str) -> Path:
        out = self.file(f"offer-{site}")
        arguments = ("--price", price, "--key", self.key, "--dir", self.node(site), "--out", out)
        assert run("market", "offer", self.file("call"), *arguments) == 0
        return out

    def sealed(self, *prices: tuple[str, str]) -> Path:
        """The signed list, after these offers; the call was made for three."""
        self.call()
        offers = [self.offer(site, price) for site, price in prices]
        assert run("market", "take", *offers, "--dir", self.registry) == 0
        assert run("market", "close", "--dir", self.registry, "--out", self.file("sealed")) == 0
        return self.file("sealed")

    def opening(self, site: str) -> Path:
        out = self.file(f"opening-{site}")
        assert run("market", "open", self.file("sealed"), "--dir", self.node(site), "--out", out) == 0
        return out


ALL = (("ash", "100"), ("birch", "300"), ("cedar", "900"))


@pytest.fixture(scope="module")
def made(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = copied(registry, tmp_path_factory.mktemp("market"))
    for site in SITES:
        make_node(own.parent, site)
    return own


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    own = copied(made, tmp_path / "market")
    return Place(own.parent, own)


def test_a_market_from_the_call_to_the_study(place: Place, capsys: Output) -> None:
    called = answer(
        capsys,
        *("market", "call", place.call_toml(), "--plan", place.folder / "plan.toml"),
        *("--dir", place.registry, "--out", place.file("call")),
    )
    assert [each["site"] for each in called["candidates"]] == list(SITES)
    text = said(capsys, "market", "show", place.file("call"))
    assert "1,000 credits for all fees" in text
    assert "What for." in text, "the draft plan is told in plain words"

    offers = [place.offer(site, price) for site, price in ALL]
    assert len({path.stat().st_size for path in offers}) == 1, "a sealed price is as long whatever it hides"
    taken = answer(capsys, "market", "take", *offers, "--dir", place.registry)["taken"]
    assert [(each["kind"], each["site"]) for each in taken] == [("sealed", site) for site in SITES]
    closed = answer(capsys, "market", "close", "--dir", place.registry, "--out", place.file("sealed"))
    assert sorted(closed["sealed"]) == list(SITES)
    standing = answer(capsys, "market", "show", "--dir", place.registry)
    assert (standing["step"], standing["sealed"], standing["opened"]) == ("opening", list(SITES), [])

    openings = [place.opening(site) for site in SITES]
    assert answer(capsys, "market", "take", *openings, "--dir", place.registry)["taken"][2]["kind"] == "opened"
    outcome = answer(capsys, "market", "select", "--dir", place.registry, "--out", place.file("outcome"))
    # Per worth: ash 1, birch 1.5, cedar 9. Parts of 1000: 1000, 666.67, 250: the first two win.
    found = {row["site"]: (row["result"], row["fee_microcredits"]) for row in outcome["institutions"]}
    assert found == {"ash": ("won", 333_333_333), "birch": ("won", 666_666_666), "cedar": ("lost", None)}
    assert outcome["spent_microcredits"] == 999_999_999 <= outcome["budget_microcredits"]
    assert outcome["institutions"][2]["highest_winning_microcredits"] == 250_000_000

    verified = answer(capsys, "market", "verify", place.file("outcome"), "--key", place.key)
    assert verified == {"verified": True, "signer_proven": True} | {
        name: value for name, value in outcome.items() if name != "file"
    }
    text = said(capsys, "market", "show", place.file("outcome"))
    assert "wins. It asked 100 credits and gets 333.333333 credits" in text
    assert "does not win. It asked 900 credits; with at most 250 credits it would have won" in text

    study = answer(capsys, "market", "publish", "--dir", place.registry)
    assert study["study"] == outcome["study"] == verified["study"], "the study's id follows from the outcome"
    plan, _ = open_coordinator(place.registry).plan(None)
    assert plan.reward.fees == {place.did("ash"): 333_333_333, place.did("birch"): 666_666_666}
    assert plan.reward.outcome == outcome["outcome"]
    assert plan.rounds.participants == 2

    for site, fee, told in (
        ("ash", 333_333_333, "Your fee. 333.333333 credits"),
        ("cedar", None, "the plan names other institutions"),
    ):
        assert put_into_study(place.node(site), place.registry) == study["study"]
        review = answer(capsys, "agreement", "review", "--dir", place.node(site))
        assert review["fee_microcredits"] == fee
        assert told in review["text"]


def test_everything_may_be_asked_again_and_stays_the_same(place: Place, capsys: Output) -> None:
    sealed = place.sealed(*ALL)
    call, first = place.file("call").read_bytes(), sealed.read_bytes()
    offer = place.file("offer-ash").read_bytes()
    assert place.offer("ash", "100.0").read_bytes() == offer
    openings = [place.opening(site) for site in SITES]
    opening = openings[0].read_bytes()
    assert place.opening("ash").read_bytes() == opening
    for _ in range(2):
        assert run("market", "take", place.file("offer-ash"), *openings, "--dir", place.registry) == 0
        assert run("market", "close", "--dir", place.registry, "--out", place.file("again")) == 0
        assert place.file("again").read_bytes() == first
        assert run("market", "select", "--dir", place.registry, "--out", place.file("outcome")) == 0
    outcome = place.file("outcome").read_bytes()
    assert run("market", "select", "--dir", place.registry, "--out", place.file("outcome")) == 0
    assert place.file("outcome").read_bytes() == outcome
    assert document_of(open_coordinator(place.registry), open_call(call.strip()).hash, "call") == call.strip()
    shown = answer(capsys, "market", "show", "--dir", place.node("ash"))["offers"]
    assert [(each["step"], each["price_microcredits"]) for each in shown] == [("opened", 100_000_000)]
    assert "decided" in said(capsys, "market", "show", "--dir", place.registry)


def test_nothing_is_decided_while_somebody_may_still_open(place: Place, capsys: Output) -> None:
    place.sealed(*ALL)
    assert run("market", "take", place.opening("birch"), "--dir", place.registry) == 0
    text = said(capsys, "market", "select", "--dir", place.registry, "--out", place.file("outcome"), code=2)
    assert "may be opened until" in text
    assert "Wait for " in text
    assert "ash" in text
    assert not place.file("outcome").exists()
    assert "decided yet" in said(capsys, "market", "publish", "--dir", place.registry, code=2)


def test_the_price_and_its_nonce_stay_in_the_node_until_it_opens(place: Place) -> None:
    place.call()
    sealed = place.offer("ash", "123.456789").read_bytes()
    (own,) = own_offers(open_node_folder(place.node("ash")).engine)
    assert len(bytes.fromhex(own.nonce)) == 32
    assert own.price == 123_456_789
    for secret in (b"123456789", b"123.456789", own.nonce.encode(), bytes.fromhex(own.nonce)):
        assert secret not in sealed


def test_a_sealed_price_stays(place: Place, capsys: Output) -> None:
    place.call()
    place.offer("ash", "100")
    arguments = ("--key", place.key, "--dir", place.node("ash"), "--out", place.file("other"))
    text = said(capsys, "market", "offer", place.file("call"), "--price", "90", *arguments, code=2)
    assert "sealed for" in text
    assert not place.file("other").exists()


@pytest.mark.parametrize("price", ["-1", "0.0000001", "1000000001", "much", "NaN", "Infinity", "1e400", ""])
def test_what_is_no_price_is_refused(price: str) -> None:
    with pytest.raises(OperatorError, match="is not a price"):
        microcredits(price)


@pytest.mark.parametrize(("price", "amount"), [("0", 0), ("12.5", 12_500_000), ("1e3", 10**9), ("0.000001", 1)])
def test_a_price_is_exact(price: str, amount: int) -> None:
    assert microcredits(price) == amount


def test_a_call_of_another_coordinator_is_refused(place: Place, capsys: Output) -> None:
    place.call()
    arguments = ("--price", "1", "--dir", place.node("ash"), "--out", place.file("offer"))
    other = PrivateKey(bytes(32)).public.did
    assert "not by" in said(capsys, "market", "offer", place.file("call"), "--key", other, *arguments, code=4)
    altered = place.file("call").read_text().replace("payload", "payl0ad", 1)
    place.file("altered").write_text(altered)
    assert "refused" in said(capsys, "market", "offer", place.file("altered"), "--key", place.key, *arguments, code=4)


def test_an_institution_that_is_not_called_cannot_offer(place: Place, capsys: Output) -> None:
    place.call()
    make_node(place.folder, "dogwood")
    arguments = ("--price", "1", "--key", place.key, "--dir", place.node("dogwood"), "--out", place.file("offer"))
    assert "not for this institution" in said(capsys, "market", "offer", place.file("call"), *arguments, code=2)


def test_nothing_is_opened_for_a_list_without_one_s_own_offer(place: Place, capsys: Output) -> None:
    """A coordinator that left an offer out of the list, or put another one in its place, is told no price."""
    place.sealed(*ALL)
    key = open_coordinator(place.registry).key
    call = open_call(place.file("call").read_bytes().strip())
    offers = market_state(open_coordinator(place.registry), None).received["sealed"]
    for number, kept in enumerate([set(offers) - {place.did("ash")}, set(offers)]):
        document = SealedList(
            call=call.hash,
            offers=tuple(offers[did].decode() for did in sorted(kept)),
            closed_at=call.document.seal_until,
        )
        place.file(f"list-{number}").write_bytes(document.sign(key).to_bytes())
    arguments = ("--dir", place.node("ash"), "--out", place.file("opening"))
    assert "does not hold" in said(capsys, "market", "open", place.file("list-0"), *arguments, code=4)
    assert not place.file("opening").exists()
    place.opening("ash")
    text = said(capsys, "market", "open", place.file("list-1"), *arguments, code=4)
    assert "signed two lists" in text


def test_an_altered_opening_is_refused(place: Place, capsys: Output) -> None:
    place.sealed(*ALL)
    opening = json.loads(place.opening("ash").read_text())
    opening["signature"] = json.loads(place.opening("birch").read_text())["signature"]
    place.file("altered").write_text(json.dumps(opening, separators=(",", ":"), sort_keys=True))
    assert "signature" in said(capsys, "market", "take", place.file("altered"), "--dir", place.registry, code=4)
    (own,) = own_offers(open_node_folder(place.node("ash")).engine)
    key = open_node_folder(place.node("ash")).key
    sealed = market_state(open_coordinator(place.registry), None).sealed
    assert sealed is not None
    cheaper = RevealedPrice(call=own.call, sealed_list=sealed.hash, price=own.price - 1, nonce=own.nonce)
    place.file("cheaper").write_bytes(cheaper.sign(key).to_bytes())
    text = said(capsys, "market", "take", place.file("cheaper"), "--dir", place.registry, code=4)
    assert "ash shows another price than it sealed" in text


def test_what_comes_too_late_or_too_early_is_refused(place: Place, capsys: Output) -> None:
    """The call was made some days ago: its times have passed now."""
    folder = open_coordinator(place.registry)
    plan = plan_from_toml((place.folder / "plan.toml").read_text(), source="plan.toml")
    path = place.call_toml(seal_days=1, open_days=2)
    early = announce(folder, call_from_toml(path.read_text(), plan, source="x"), now=datetime.now(UTC))
    place.file("call").write_bytes(document_of(folder, early.hash, "call"))
    offer = place.offer("ash", "100")
    assert "are taken until" in said(capsys, "market", "close", "--dir", place.registry, code=2)

    path = place.call_toml(seal_days=-2, open_days=-1)
    document = call_from_toml(path.read_text(), plan, source="x")
    assert "has passed" in said(
        capsys, "market", "call", path, "--plan", place.folder / "plan.toml", "--dir", place.registry, code=2
    )
    late = announce(folder, document, now=datetime.now(UTC) - timedelta(days=3))
    place.file("call").write_bytes(document_of(folder, late.hash, "call"))
    arguments = ("--price", "1", "--key", place.key, "--dir", place.node("ash"), "--out", place.file("late"))
    assert "were taken until" in said(capsys, "market", "offer", place.file("call"), *arguments, code=2)
    assert "Nobody has offered" in said(capsys, "market", "close", "--dir", place.registry, code=2)
    assert "not signed yet" in said(capsys, "market", "select", "--dir", place.registry, code=2)
    assert run("market", "take", offer, "--dir", place.registry) == 0, "an offer finds its own call"
    assert answer(capsys, "market", "show", "--dir", place.registry, "--call", early.id)["sealed"] == ["ash"]


def test_a_second_offer_of_one_institution_is_refused(place: Place, capsys: Output) -> None:
    place.call()
    assert run("market", "take", place.offer("ash", "100"), "--dir", place.registry) == 0
    key = open_node_folder(place.node("ash")).key
    call = open_call(place.file("call").read_bytes().strip())
    place.file("second").write_bytes(SealedPrice(call=call.hash, commitment="ab" * 32).sign(key).to_bytes())
    assert "the first one counts" in said(
        capsys, "market", "take", place.file("second"), "--dir", place.registry, code=4
    )


def test_other_files_are_refused_by_name(place: Place, capsys: Output) -> None:
    place.call()
    plan = place.folder / "plan.toml"
    for command in (("take", plan, "--dir", place.registry), ("show", plan), ("verify", plan)):
        said(capsys, "market", *command, code=4)
    assert "neither" in said(capsys, "market", "take", place.file("call"), "--dir", place.registry, code=2)
    assert "of type" in said(capsys, "market", "verify", place.file("call"), code=4)
    assert "nothing to read" in said(capsys, "market", "show", place.offer("ash", "1"), code=2)
    assert "nothing to show" in said(capsys, "market", "show", code=2)
    assert "no call" in said(capsys, "market", "show", "--dir", place.registry, "--call", "heart-1234", code=2)
    assert run("market", "show", "--dir", place.node("birch")) == 0
    assert "Nothing was offered" in capsys.readouterr().out
    assert "of type" in said(capsys, "market", "open", place.file("call"), "--dir", place.node("birch"), code=4)


def test_an_outcome_without_a_key_is_consistent_and_unproven(place: Place, capsys: Output) -> None:
    place.sealed(*ALL)
    assert run("market", "take", *[place.opening(site) for site in SITES], "--dir", place.registry) == 0
    assert run("market", "select", "--dir", place.registry, "--out", place.file("outcome")) == 0
    data = answer(capsys, "market", "verify", place.file("outcome"), code=3)
    assert (data["verified"], data["signer_proven"], data["error"]["code"]) == (True, False, "UnprovenSignerError")
    other = PrivateKey(bytes(32)).public.did
    assert "not by" in said(capsys, "market", "verify", place.file("outcome"), "--key", other, code=4)


def test_too_few_winners_make_no_study(place: Place, capsys: Output) -> None:
    place.sealed(("ash", "600"), ("birch", "2000"), ("cedar", "700"))
    assert run("market", "take", *[place.opening(site) for site in SITES], "--dir", place.registry) == 0
    outcome = answer(capsys, "market", "select", "--dir", place.registry, "--out", place.file("outcome"))
    assert outcome["study"] is None
    assert "a round needs 2" in outcome["no_study"]
    assert "no study follows" in said(capsys, "market", "publish", "--dir", place.registry, code=2)
    decision = open_outcome(place.file("outcome").read_bytes().strip())
    assert list(decision.selection.payments) == ["ash"]


def test_a_call_that_makes_no_sense_is_refused(place: Place, capsys: Output) -> None:
    arguments = ("--plan", place.folder / "plan.toml", "--dir", place.registry, "--out", place.file("call"))
    mistakes = [
        ("budget_microcredits", "-1", "budget_microcredits"),
        ("budget", "1", "budget"),
        ("open_until", '"2020-01-01T00:00:00Z"', "after seal_until"),
        ("open_until", "2099-01-01T00:00:00", "open_until"),
        ("seal_until", '"tomorrow"', "seal_until"),
        ("worth", "= 1", "not valid TOML"),
    ]
    for name, value, why in mistakes:
        assert why in said(capsys, "market", "call", place.call_toml(**{name: value}), *arguments, code=2)
        assert not place.file("call").exists()
