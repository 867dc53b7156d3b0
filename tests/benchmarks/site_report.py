"""The Markdown of one table's figures: means, each site's paired difference with its interval, losers by name."""

import math
from collections.abc import Sequence

import numpy as np
from federated_sites import GAP_GOAL, LARGE_SITE, TEST_SHARE, Figures, Interval, gap_closed, interval
from numpy.typing import NDArray
from site_tables import Table

SITES_SHOWN_MAX = 20
GOAL = "federated at 3"


def report(table: Table, figures: Figures, *, unit: str = "AUC", ratio: float = TEST_SHARE / (1 - TEST_SHARE)) -> str:
    """The whole sub-section. ``ratio`` is test people to training people, for the intervals for new people."""
    people = np.array([len(batch.subjects) for batch in table.sites.values()])
    lines = [*summary(figures, unit, ratio), ""]
    if len(people) <= SITES_SHOWN_MAX:
        lines += [*by_site(table, figures, people, ratio), ""]
    for name in figures:
        if name.startswith("federated"):
            lines.append(
                f"- {name}, against alone without privacy: {_winners_and_losers(list(table.sites), figures, name)}"
            )
    lines += ["", *goals(figures, people)]
    return "\n".join(lines)


def summary(figures: Figures, unit: str, ratio: float) -> list[str]:
    """One line for each way to learn: the mean over sites, and the paired difference to ``alone``."""
    lines = [
        f"| mean over sites | {unit} | less alone | 95 % over splits | 95 % for new people | of the gap to pooled |",
        "| --- | ---: | ---: | --- | --- | ---: |",
    ]
    every = np.ones(figures["alone"].shape[1], dtype=np.bool_)
    for name, values in figures.items():
        mean = f"| {name} | {np.nanmean(values, axis=1).mean():.4f} |"
        if name == "alone":
            lines.append(f"{mean} | | | |")
            continue
        found = _difference(figures, name, every, ratio)
        closed = f"{gap_closed(figures, name, every)[0]:.0%}" if name.startswith("federated") and gains(figures) else ""
        lines.append(f"{mean} {found.mean:+.4f} | {found} | {_new(found)} | {closed} |")
    return lines


def by_site(table: Table, figures: Figures, people: NDArray[np.int64], ratio: float) -> list[str]:
    """One line for each site at the goal's epsilon."""
    lines = [
        f"| site | people | alone | {GOAL} | pooled | {GOAL} less alone | 95 % over splits | 95 % for new people |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for place, site in enumerate(table.sites):
        values = [float(np.nanmean(figures[name][:, place])) for name in ("alone", GOAL, "pooled")]
        found = interval(figures[GOAL][:, place] - figures["alone"][:, place], ratio)
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {site} | {people[place]} | {cells} | {found.mean:+.3f} | {found} | {_new(found)} |")
    return lines


def goals(figures: Figures, people: NDArray[np.int64]) -> list[str]:
    """Whether epsilon 3 beats alone where pooling helps, and closes nine tenths of the gap at large sites."""
    every = np.ones(people.size, dtype=np.bool_)
    if not gains(figures):
        return ["Goals: pooling brings no gain here that these splits could show, so that there is no gap to close."]
    found = _difference(figures, GOAL, every, 0)
    beaten = _met(found.mean - found.half > 0)
    lines = [f"- Goal, epsilon 3 beats alone without privacy on the mean: **{beaten}** ({found.mean:+.4f}, {found})."]
    large = people >= LARGE_SITE
    if large.any() and gains(figures, large):
        share, low, high = gap_closed(figures, GOAL, large)
        lines.append(
            f"- Goal, {GAP_GOAL:.0%} of the gap to pooled at the {large.sum()} sites of {LARGE_SITE} people or more: "
            f"**{_met(share >= GAP_GOAL)}** ({share:.0%}, 95 % {low:.0%} to {high:.0%})."
        )
    elif large.any():
        lines.append(f"- At the {large.sum()} sites of {LARGE_SITE} people or more pooling brings no gain to close.")
    return lines


def gains(figures: Figures, sites: NDArray[np.bool_] | None = None) -> bool:
    """Whether pooling without privacy is better than alone, beyond what these splits leave open."""
    chosen = np.ones(figures["alone"].shape[1], dtype=np.bool_) if sites is None else sites
    found = _difference(figures, "pooled", chosen, 0)
    return found.mean - found.half > 0


def _difference(figures: Figures, name: str, sites: NDArray[np.bool_], ratio: float) -> Interval:
    return interval(np.nanmean((figures[name] - figures["alone"])[:, sites], axis=1), ratio)


def _winners_and_losers(sites: Sequence[str], figures: Figures, name: str) -> str:
    better: list[str] = []
    worse: list[str] = []
    for place, site in enumerate(sites):
        found = interval(figures[name][:, place] - figures["alone"][:, place])
        if abs(found.mean) > found.half:
            (better if found.mean > 0 else worse).append(site)
    undecided = len(sites) - len(better) - len(worse)
    losers = ", ".join(worse) or "none"
    return f"better {len(better)} sites, undecided {undecided}, **worse {len(worse)}** ({losers})."


def _new(found: Interval) -> str:
    if not math.isfinite(found.half_new):
        return ""
    return f"{found.mean - found.half_new:+.3f} to {found.mean + found.half_new:+.3f}"


def _met(condition: bool) -> str:
    return "met" if condition else "MISSED"
