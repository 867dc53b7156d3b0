"""A market of institutions with known keys, played by the documents' own rules: for tests.

``tests/federation/rules/test_offers.py`` alters what is signed here.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.offers import (
    Candidate,
    MarketCall,
    MarketOutcome,
    OpenedCall,
    OpenedList,
    RevealedPrice,
    SealedList,
    SealedPrice,
    commitment,
    open_call,
    open_list,
    payments,
    selected,
)
from federation.rules.study import StudyPlan

COORDINATOR = PrivateKey(bytes([200]) * 32)
NAMES = ("ash", "birch", "cedar", "dogwood")
KEYS = {name: PrivateKey(bytes([201 + at]) * 32) for at, name in enumerate(NAMES)}
DIDS = {name: key.public.did for name, key in KEYS.items()}
SEAL_UNTIL = datetime(2026, 12, 1, 12, tzinfo=UTC)
OPEN_UNTIL = datetime(2026, 12, 4, 12, tzinfo=UTC)


def draft(**changes: Any) -> StudyPlan:
    """The built-in plan for institutions of any number; ``section={...}`` changes its fields."""
    text = resources.files("federation.cli").joinpath("plan_template.toml").read_text("utf-8")
    document = tomllib.loads(text, parse_float=Decimal) | {"code_approved": ["c" * 64]}
    document["validation"]["commitment"] = "d" * 64
    document["rounds"]["quorum"] = 1
    for section, fields in changes.items():
        document[section] |= fields
    return StudyPlan.model_validate(document)


def make_call(plan: StudyPlan, worths: Mapping[str, int], budget: int = 1000, /, **changes: Any) -> MarketCall:
    fields: dict[str, Any] = {
        "plan": plan.to_payload().decode(),
        "budget_microcredits": budget,
        "worth": "Beds.",
        "seal_until": format_instant(SEAL_UNTIL),
        "open_until": format_instant(OPEN_UNTIL),
        "candidates": tuple(Candidate(site=name, did=DIDS[name], worth=worth) for name, worth in worths.items()),
    }
    return MarketCall(**{**fields, **changes})


def nonce(name: str) -> bytes:
    return KEYS[name].seed[::-1]


@dataclass
class Played:
    """Everything that was signed, as bytes; ``prices`` of those who sealed, ``silent`` of those who did not open."""

    plan: StudyPlan
    worths: Mapping[str, int]
    prices: Mapping[str, int]
    budget: int = 1000
    silent: Sequence[str] = ()
    decided_at: datetime = OPEN_UNTIL
    call_bytes: bytes = field(init=False)
    call: OpenedCall = field(init=False)
    offers: dict[str, bytes] = field(init=False)
    list_bytes: bytes = field(init=False)
    openings: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.call_bytes = make_call(self.plan, self.worths, self.budget).sign(COORDINATOR).to_bytes()
        self.call = open_call(self.call_bytes)
        self.offers = {DIDS[name]: self.offer(name) for name in self.prices}
        self.list_bytes = self.listed(self.offers).sign(COORDINATOR).to_bytes()
        self.openings = {DIDS[name]: self.opening(name) for name in self.prices if name not in self.silent}

    @property
    def sealed(self) -> OpenedList:
        return open_list(self.list_bytes, self.call)

    def offer(self, name: str, **changes: Any) -> bytes:
        value = commitment(call=self.call.hash, party=DIDS[name], price=self.prices[name], nonce=nonce(name))
        return SealedPrice(**{"call": self.call.hash, "commitment": value, **changes}).sign(KEYS[name]).to_bytes()

    def listed(self, offers: Mapping[str, bytes], /, **changes: Any) -> SealedList:
        fields: dict[str, Any] = {
            "call": self.call.hash,
            "offers": tuple(offers[did].decode() for did in sorted(offers)),
            "closed_at": format_instant(SEAL_UNTIL),
        }
        return SealedList(**{**fields, **changes})

    def opening(self, name: str, **changes: Any) -> bytes:
        fields = {
            "call": self.call.hash,
            "sealed_list": self.sealed.hash,
            "price": self.prices[name],
            "nonce": nonce(name).hex(),
        }
        return RevealedPrice(**{**fields, **changes}).sign(KEYS[name]).to_bytes()

    def outcome(self, **changes: Any) -> MarketOutcome:
        prices = {DIDS[name]: price for name, price in self.prices.items() if name not in self.silent}
        fields: dict[str, Any] = {
            "call": self.call_bytes.decode(),
            "sealed_list": self.list_bytes.decode(),
            "openings": tuple(self.openings[did].decode() for did in sorted(self.openings)),
            "payments": payments(self.call, selected(self.call, prices)),
            "decided_at": format_instant(self.decided_at),
        }
        return MarketOutcome(**{**fields, **changes})

    def signed(self, **changes: Any) -> bytes:
        return self.outcome(**changes).sign(COORDINATOR).to_bytes()
