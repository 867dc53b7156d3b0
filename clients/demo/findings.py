"""What the figures say, in words: which difference is clear, which is not, and what a reader must not conclude.

Sentences are made from the report's own figures, so that no adjective outlives a number. A difference is called clear
only when its 95\N{NO-BREAK SPACE}% interval leaves out zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from clients.demo.studies import DemoStudy

MINUS: Final = "\N{MINUS SIGN}"
MICRO: Final = 1_000_000
_FEW: Final = 10


@dataclass(frozen=True, slots=True)
class Site:
    """A site of the report: its slug, how people call it, and its figures (``report["sites"][slug]``)."""

    slug: str
    title: str
    figures: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """``gain``, ``loss`` or ``unclear``: the network against training alone."""
        if self.figures["gain_low"] > 0:
            return "gain"
        return "loss" if self.figures["gain_high"] < 0 else "unclear"


def sites_of(report: Mapping[str, Any], study: DemoStudy) -> list[Site]:
    """The report's sites in the study's order."""
    return [Site(slug, site.title, report["sites"][slug]) for slug, site in study.sites.items()]


def auc_text(value: float) -> str:
    """Three digits: more would be noise."""
    return f"{value:.3f}"


def signed_text(value: float, digits: int = 3) -> str:
    """A difference with its sign, as people write it."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def credits_text(micro: int) -> str:
    """Micro-credits as credits, exactly where it is short: ``388.78``."""
    return f"{micro / MICRO:,.2f}"


def names_text(names: Sequence[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``; ``none``."""
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def result_sentence(report: Mapping[str, Any], study: DemoStudy) -> str:
    """The study's result in one sentence: the report's headline, and the demo's last words on the terminal."""
    summary, plan = report["summary"], report["study"]
    clear = summary["gain_low"] > 0 or summary["gain_high"] < 0
    difference = signed_text(summary["gain"])
    interval = f"95\N{NO-BREAK SPACE}% from {signed_text(summary['gain_low'])} to {signed_text(summary['gain_high'])}"
    word = ("a clear gain" if summary["gain"] > 0 else "a clear loss") if clear else "no clear difference"
    return (
        f"With privacy (epsilon {plan['epsilon']:g} per {study.subject}) the {study.institutions} together reach a "
        f"mean AUC of {auc_text(summary['mean_federated'])} (a coin has 0.5, 1 is never wrong); "
        f"each alone, without any privacy, {auc_text(summary['mean_alone'])}: {difference} ({interval}), {word}."
    )


def comparison_sentences(report: Mapping[str, Any], study: DemoStudy) -> list[str]:
    """Who gained, who lost, where the figures cannot tell, and how far one run can be trusted."""
    sites = sites_of(report, study)
    summary = report["summary"]

    def named(verdict: str) -> str:
        return names_text(
            [f"{site.title} ({signed_text(site.figures['gain'])})" for site in sites if site.verdict == verdict]
        )

    verdict = (
        f"Clear gain over training alone: {named('gain')}. Clear loss: {named('loss')}. "
        f"Not significant (the 95\N{NO-BREAK SPACE}% interval of the difference includes zero): {named('unclear')}."
    )
    sentences = [verdict]
    few = [
        f"{site.title} ({min(positive, rows - positive)} of {rows} {'with' if positive * 2 < rows else 'without'})"
        for site in sites
        if (rows := site.figures.get("validation_rows", 0))
        and min(positive := site.figures["validation_positive"], rows - positive) < _FEW
    ]
    if few:
        sentences.append(
            f"Few of the sponsor's rows carry the rarer answer at {names_text(few)}: the bars there are wide, and "
            "still too narrow to be taken literally."
        )
    pooled = summary["mean_pooled"] - summary["mean_federated"]
    sentences.append(
        f"Putting all rows in one place without privacy, which nobody here may do, would reach "
        f"{auc_text(summary['mean_pooled'])} ({signed_text(pooled)} against the network)."
    )
    forecasts = {line["name"]: line for line in report.get("baselines", ())}
    if forecasts:
        network, persistence = forecasts["federated"], forecasts["persistence"]
        ranks = "better" if network["auc"] > persistence["auc"] else "no better"
        exact = "more" if network["log_loss"] < persistence["log_loss"] else "less"
        ranking = f"AUC {auc_text(network['auc'])} to {auc_text(persistence['auc'])}"
        chances = f"log loss {network['log_loss']:.3f} to {persistence['log_loss']:.3f}"
        sentences.append(
            f"Against persistence (what is now will be) the network ranks moments {ranks} ({ranking}), and the chances "
            f"that it states are {exact} exact ({chances})."
        )
    if study.licence and summary["gain_low"] <= 0:
        sentences.append(
            "Pooling gave no clear gain here: the stations see nearly the same weather, and each has a year of it."
        )
    sentences.append(
        "This is one division of the data and one draw of secret noise: run it again and every figure moves. "
        "docs/benchmarks.md has the same comparison over many divisions."
    )
    return sentences


def reward_sentences(report: Mapping[str, Any], study: DemoStudy) -> list[str]:
    """How values became credits."""
    ledger, valuation = report["ledger"], report["valuation"]
    sites = sites_of(report, study)
    improvement = valuation["v_all"] - valuation["v_empty"]
    origin = (
        f"The model's quality rose by {improvement:.4f} nats. The {study.institutions}' values add up to exactly that: "
        "each value is what the presence of that site's updates was worth, averaged over all orders in which "
        "the sites could have joined (Shapley value)."
    )
    sentences = [origin]
    unpaid = [site.title for site in sites if site.figures["reward_microcredits"] == 0]
    if unpaid:
        sentences.append(f"No credits for {names_text(unpaid)}: the measured value was not above the plan's minimum.")
    burned = f"{credits_text(ledger['burned'])} credits were" if ledger["burned"] else "None were"
    sentences.append(
        f"Credits that nobody earns are burned and never go back to the sponsor, who could otherwise tailor the "
        f"validation rows. {burned} burned in this study."
    )
    return sentences


def withdrawals(report: Mapping[str, Any], study: DemoStudy) -> dict[int, str]:
    """First round without the people who withdrew -> words for the charts.

    From ``report["events"]`` where the demo wrote them, else from the sites' own counts of people used.
    """
    words: dict[int, str] = {}
    for event in report.get("events", ()):
        if event["what"] == "withdrawal":
            words[event["round"]] = f"{event['count']} withdrew at {study.sites[event['site']].title}"
    if words:
        return words
    for slug, site in study.sites.items():
        count = report["sites"][slug].get("withdrawn", 0)
        used = [(entry["round"], entry["subjects_used"].get(slug, 0)) for entry in report["rounds"]]
        for (_, before), (number, after) in pairwise(used):
            if count and before - after == count:
                words[number] = f"{count} withdrew at {site.title}"
                break
    return words
