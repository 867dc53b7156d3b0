"""The demo's report: one self-contained page for people, and the same figures as JSON for programs.

The page needs no script and asks the network for nothing (its own policy forbids it). Everything on it comes from the
dictionary that also becomes ``report.json``; the words are made in ``findings``, the pictures in ``charts``.

Fields of the dictionary (site slugs are the keys of ``sites`` everywhere; accounts are ``kind:name``; money is integer
micro-credits; utilities and values are nats as floats):

- ``study``: ``id``, ``name`` (``heart`` or ``weather``), ``title``, ``purpose`` (the plan's statement), ``plan_hash``,
  ``rounds``, ``epsilon``, ``delta``;
- ``seed`` (optional);
- ``processes[]``: ``role``, ``name``, ``pid``, ``peer_id``;
- ``rounds[]``: ``round``, ``participants[]``, ``refused[]`` {``name``, ``reason``}, ``aggregate_sha256``,
  ``auc_validation``, ``subjects_used`` {site: n}, ``epsilon_spent`` {site: cumulative};
- ``sites`` {site: ``rows``, ``consented``, ``refused``, ``expired`` (these three add up to ``rows``), ``withdrawn``,
  ``subjects`` (optional, where one subject has several rows), ``epsilon``, ``epsilon_pld`` (optional), ``delta``,
  ``value``, ``reward_microcredits``, and everything that ``comparisons.compare`` gives for a site};
- ``summary`` and ``baselines``: as ``comparisons.compare`` gives them;
- ``events[]`` (optional): {``round``: the first it applies to, ``what``: ``withdrawal``, ``site``, ``count``};
- ``time_to_stop`` (optional): ``withdrawals``, ``in_flight`` (how many came while a round was under way), from their
  receipts to the end of the last such round ``median_s`` and ``max_s``, to the first decision that knew of them
  ``decided_max_s``, and ``uses_after`` (rounds after that: 0);
- ``valuation``: ``v_empty``, ``v_all``, ``rounds[]`` {``round``, ``players[]``, ``coalitions`` {bitmask: utility}};
- ``ledger``: ``minted``, ``escrow``, ``burned``, ``pool``, ``balances``;
- ``log``: ``size``, ``root``, ``checkpoint``, ``key``, ``cosignatures`` (optional);
- ``export`` (optional): where the export lies, as the page's reader would type it;
- ``seconds``: ``total`` and parts.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from clients.demo import charts
from clients.demo.findings import (
    Site,
    auc_text,
    comparison_sentences,
    credits_text,
    names_text,
    result_sentence,
    reward_sentences,
    signed_text,
    sites_of,
    withdrawals,
)
from clients.demo.studies import STUDIES, DemoStudy
from clients.pages.page import environment
from clients.pages.pictures import picture

PAGE: Final = "report.html"
FIGURES: Final = "report.json"
_SITE_COLOURS: Final = 6
_FORECASTS: Final = {
    "climatology": "climatology",
    "persistence": "persistence",
    "alone_nonprivate": "alone, no privacy",
    "federated": "network, with privacy",
    "pooled_nonprivate": "pooled, no privacy",
}


def write_report(report: Mapping[str, Any], folder: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder that exists; return the page's path."""
    figures = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / FIGURES).write_text(figures, encoding="utf-8")
    page = folder / PAGE
    page.write_text(render(report), encoding="utf-8")
    return page


def render(report: Mapping[str, Any]) -> str:
    """The page's HTML."""
    study = STUDIES[report["study"]["name"]]
    sites = sites_of(report, study)
    templates = environment("clients.demo")
    templates.filters |= {
        "auc": auc_text,
        "signed": signed_text,
        "signed4": lambda value: signed_text(value, 4),
        "credits": credits_text,
        "plain": lambda value: f"{value:.12f}".rstrip("0").rstrip("."),
        "thousands": lambda value: f"{value:,}",
    }
    return templates.get_template(PAGE).render(
        study=study,
        plan=report["study"],
        headline=result_sentence(report, study),
        sites=sites,
        unit="rows" if study.licence else study.subjects,
        subjects=sum(site.figures.get("subjects", site.figures["rows"]) for site in sites),
        people=sum(site.figures["rows"] for site in sites),
        consented=sum(site.figures["consented"] for site in sites),
        worst_epsilon=max(site.figures["epsilon"] for site in sites),
        has_pld=any(site.figures.get("epsilon_pld") is not None for site in sites),
        rounds=report["rounds"],
        absences=_absences(report, study),
        comparison=comparison_sentences(report, study),
        summary=report["summary"],
        baselines=[{**line, "title": _FORECASTS[line["name"]]} for line in report.get("baselines", ())],
        consent_sentence=_consent_sentence(sites, study, report.get("time_to_stop")),
        rewards=reward_sentences(report, study),
        pool_parts=_pool_parts(sites, report["ledger"]),
        balances_total=sum(report["ledger"]["balances"].values()),
        valuation=report["valuation"],
        ledger=report["ledger"],
        log=report["log"],
        export=report.get("export", "export"),
        processes=report["processes"],
        seconds=report["seconds"],
        seed=report.get("seed"),
        charts=_charts(report, study, sites),
    )


def _charts(report: Mapping[str, Any], study: DemoStudy, sites: Sequence[Site]) -> dict[str, Markup]:
    rounds, plan, valuation = report["rounds"], report["study"], report["valuation"]
    changes = withdrawals(report, study)
    count = len(sites)
    values = ", ".join(f"{site.title} {signed_text(site.figures['value'], 4)}" for site in sites)
    return {
        "auc_by_site": picture(
            "auc-by-site",
            f"AUC of each {study.institution}, alone, in the network and pooled; the table below has figures.",
            charts.auc_by_site(sites),
            height=0.95 + 0.72 * count,
            narrow_height=1.6 + 0.8 * count,
        ),
        "auc_over_rounds": picture(
            "auc-over-rounds",
            f"AUC after each round, from {auc_text(rounds[0]['auc_validation'])} in the first to "
            f"{auc_text(rounds[-1]['auc_validation'])} in the last.",
            charts.auc_over_rounds(rounds, changes, count),
            height=2.9,
        ),
        "epsilon_over_rounds": picture(
            "epsilon-over-rounds",
            f"Epsilon spent after each round, below the budget of {plan['epsilon']:g} at every {study.institution}.",
            charts.epsilon_over_rounds(
                _epsilon_curves(report, sites),
                float(plan["epsilon"]),
                [entry["round"] for entry in rounds],
                study.subject,
            ),
            height=2.9,
        ),
        "consents_by_site": picture(
            "consents-by-site",
            f"How many {study.subjects} of each {study.institution} stayed, withdrew, said no or let consent expire.",
            charts.consents_by_site(sites),
            height=0.9 + 0.5 * count,
            narrow_height=1.3 + 0.5 * count,
        ),
        "used_per_round": picture(
            "used-per-round",
            f"{study.subjects.capitalize()} permitted in each round; the table below has the figures.",
            charts.used_per_round(sites, rounds, changes),
            height=3.1,
        ),
        "value_waterfall": picture(
            "value-waterfall",
            f"From {valuation['v_empty']:.3f} nats, the first model, to {valuation['v_all']:.3f}, the last: {values}.",
            charts.value_waterfall(sites, valuation["v_empty"], valuation["v_all"]),
            height=0.8 + 0.46 * (count + 2),
        ),
    }


def _epsilon_curves(report: Mapping[str, Any], sites: Sequence[Site]) -> list[tuple[str, list[float]]]:
    """Sites that spent the same in every round share a curve: lines on top of each other would hide all but one."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for site in sites:
        curve = tuple(entry["epsilon_spent"].get(site.slug, 0.0) for entry in report["rounds"])
        groups.setdefault(curve, []).append(site.title)
    return [(names_text(titles), list(curve)) for curve, titles in groups.items()]


def _absences(report: Mapping[str, Any], study: DemoStudy) -> list[dict[str, Any]]:
    """Who was absent when and why; the same reason in several rounds is told once."""
    titles = {slug: site.title for slug, site in study.sites.items()}
    rounds: dict[tuple[str, str], list[int]] = {}
    for entry in report["rounds"]:
        for refusal in entry["refused"]:
            key = (titles.get(refusal["name"], refusal["name"]), refusal["reason"])
            rounds.setdefault(key, []).append(entry["round"])
    return [
        {
            "rounds": f"Round{'s' if len(numbers) > 1 else ''} {names_text([str(number) for number in numbers])}",
            "title": title,
            "reason": reason,
        }
        for (title, reason), numbers in rounds.items()
    ]


def _consent_sentence(sites: Sequence[Site], study: DemoStudy, stop: Mapping[str, Any] | None) -> str:
    total = {
        key: sum(site.figures[key] for site in sites)
        for key in ("rows", "consented", "refused", "expired", "withdrawn")
    }
    words = (
        f"Of {total['rows']:,} {study.subjects} {total['consented']:,} said yes, {total['refused']:,} said no, and the "
        f"consent of {total['expired']:,} had expired: the latter two groups were never used."
    )
    if total["withdrawn"]:
        where = names_text([site.title for site in sites if site.figures["withdrawn"]])
        words += (
            f" In the middle of the study {total['withdrawn']} {study.subjects} of {where} withdrew; from the next "
            "round on their rows were not read. What the model had learnt before stays under the same epsilon."
        )
        if stop and stop["withdrawals"]:
            under_way = (
                f"the round that was under way ended {stop['max_s']:.1f} s after the last receipt at most"
                if stop["in_flight"]
                else "no round was under way when they got their receipts"
            )
            words += (
                f" Time to stop: {under_way}, and within {stop['decided_max_s']:.1f} s a round was decided without "
                f"them; uses after that: {stop['uses_after']}."
            )
    return words


def _pool_parts(sites: Sequence[Site], ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    pool = ledger["pool"] or 1
    parts: list[dict[str, Any]] = [
        {
            "title": site.title,
            "value": site.figures["value"],
            "micro": site.figures["reward_microcredits"],
            "percent": 100 * site.figures["reward_microcredits"] / pool,
            "colour": f"--site-{number % _SITE_COLOURS}",
        }
        for number, site in enumerate(sites)
    ]
    burned = {"title": "burned", "value": None, "micro": ledger["burned"], "percent": 100 * ledger["burned"] / pool}
    return [*parts, burned | {"colour": "--muted"}] if ledger["burned"] else parts
