"""What the report's pictures show; how they become part of a page is in ``clients.pages.pictures``."""

from collections.abc import Mapping, Sequence
from typing import Any

from clients.demo.findings import MINUS, Site, auc_text, signed_text
from clients.pages.pictures import (
    ALONE,
    BAD,
    GOOD,
    GRID,
    INK,
    MUTED,
    NETWORK,
    PAPER,
    POOLED,
    SITE_COLOURS,
    SOFT,
    Axes,
    Draw,
)


def auc_by_site(sites: Sequence[Site]) -> Draw:
    """Dots with 95 % bars: alone, network, pooled, for each site."""
    ways = (
        ("alone_nonprivate", "alone, no privacy", ALONE, "s", -0.24),
        ("federated", "network, with privacy", NETWORK, "o", 0.0),
        ("pooled_nonprivate", "pooled, no privacy", POOLED, "D", 0.24),
    )

    def draw(axes: Axes, narrow: bool) -> None:
        rows = {site.slug: len(sites) - 1 - place for place, site in enumerate(sites)}
        for key, label, colour, marker, shift in ways:
            for site in sites:
                middle, low, high = (site.figures[f"auc_{key}{end}"] for end in ("", "_low", "_high"))
                y = rows[site.slug] - shift
                axes.plot([low, high], [y, y], color=colour, linewidth=2.4, alpha=0.45, solid_capstyle="round")
                first = site is sites[0]
                axes.plot([middle], [y], marker, color=colour, markersize=8, label=label if first else None)
                if key == "federated":
                    axes.text(
                        1.01, y, auc_text(middle), transform=axes.get_yaxis_transform(), color=colour, va="center",
                        fontsize=10, fontweight="bold",
                    )  # fmt: skip
        lowest = min(site.figures[f"auc_{key}_low"] for site in sites for key, *_ in ways)
        axes.set_xlim(max(0.0, min(0.5, lowest) - 0.03), 1.01)
        axes.set_ylim(-0.6, len(sites) - 0.35)
        axes.set_yticks(list(rows.values()), [site.title for site in sites], color=INK, fontsize=10.5)
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_xlabel(
            "AUC (0.5 is a coin)" if narrow else "area under the ROC curve (0.5 is a coin, 1 is never wrong)"
        )
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.tick_params(axis="y", length=0)
        columns = 1 if narrow else len(ways)
        axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=columns, frameon=False, labelcolor=INK)

    return draw


def auc_over_rounds(rounds: Sequence[Mapping[str, Any]], changes: Mapping[int, str], everyone: int) -> Draw:
    """The line of the sponsor's AUC; hollow where a site was absent; a mark where consents were withdrawn."""

    def draw(axes: Axes, narrow: bool) -> None:
        numbers = [entry["round"] for entry in rounds]
        values = [entry["auc_validation"] for entry in rounds]
        axes.plot(numbers, values, color=NETWORK, linewidth=2.2, zorder=2)
        for number, value, entry in zip(numbers, values, rounds, strict=True):
            complete = len(entry["participants"]) >= everyone
            axes.plot(
                [number], [value], "o", color=NETWORK, markersize=6, markerfacecolor=NETWORK if complete else PAPER
            )
        span = max(values) - min(values) or 0.01
        axes.set_ylim(min(values) - 0.35 * span, max(values) + 0.35 * span)
        axes.annotate(
            auc_text(values[-1]), (numbers[-1], values[-1]), (0, 9), textcoords="offset points", ha="center",
            color=NETWORK, fontweight="bold", fontsize=10,
        )  # fmt: skip
        _mark_changes(axes, changes)
        axes.set_xlabel("round")
        axes.set_ylabel("AUC on all the sponsor's rows")
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        _whole_ticks(axes, numbers, narrow=narrow)

    return draw


def epsilon_over_rounds(
    curves: Sequence[tuple[str, Sequence[float]]], budget: float, numbers: Sequence[int], subject: str
) -> Draw:
    """Privacy spent, cumulative, under the line that nobody may cross. ``curves``: label -> epsilon per round."""

    def draw(axes: Axes, narrow: bool) -> None:
        axes.axhline(budget, color=BAD, linewidth=1.6, linestyle=(0, (5, 3)))
        axes.annotate(
            f"budget: {budget:g}", (numbers[0], budget), (0, 5), textcoords="offset points", color=BAD, fontsize=9.5
        )
        for place, (label, values) in enumerate(curves):
            colour = NETWORK if len(curves) == 1 else SITE_COLOURS[place]
            axes.plot(numbers, values, drawstyle="steps-post", color=colour, linewidth=2.2, label=label)
            axes.plot([numbers[-1]], [values[-1]], "o", color=colour, markersize=6)
        axes.set_ylim(0, budget * 1.16)
        axes.set_xlabel("round")
        axes.set_ylabel(f"epsilon spent per {subject}")
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=9)
        _whole_ticks(axes, numbers, narrow=narrow)

    return draw


def consents_by_site(sites: Sequence[Site]) -> Draw:
    """Stacked bars: how many of each site's people took part to the end, withdrew, said no, or had let it lapse."""
    kinds = (
        ("stayed", "yes, to the end", NETWORK, 0.95),
        ("withdrawn", "withdrew midway", BAD, 0.95),
        ("refused", "said no", MUTED, 0.75),
        ("expired", "consent expired", SOFT, 1.0),
    )

    def draw(axes: Axes, narrow: bool) -> None:
        widest = max(site.figures["rows"] for site in sites)
        for place, site in enumerate(sites):
            row, left = len(sites) - 1 - place, 0
            counts = {key: site.figures.get(key, 0) for key in ("withdrawn", "refused", "expired")}
            counts["stayed"] = site.figures["consented"] - counts["withdrawn"]
            for key, label, colour, alpha in kinds:
                count = counts[key]
                axes.barh(
                    [row], [count], left=[left], height=0.56, color=colour, alpha=alpha, edgecolor=PAPER, linewidth=1.2,
                    label=label if place == 0 else None,
                )  # fmt: skip
                if count > widest * (0.06 if narrow else 0.03):
                    shade = INK if key == "expired" else PAPER
                    axes.text(left + count / 2, row, str(count), ha="center", va="center", color=shade, fontsize=9)
                left += count
        axes.set_yticks(range(len(sites)), [site.title for site in reversed(sites)], color=INK, fontsize=10.5)
        axes.set_ylim(-0.5, len(sites) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        columns = 2 if narrow else len(kinds)
        axes.legend(loc="lower center", bbox_to_anchor=(0.42, 1.0), ncols=columns, frameon=False, labelcolor=INK)

    return draw


def used_per_round(sites: Sequence[Site], rounds: Sequence[Mapping[str, Any]], changes: Mapping[int, str]) -> Draw:
    """How many people each site could use in each round; each line carries its site's name."""

    def draw(axes: Axes, narrow: bool) -> None:
        numbers = [entry["round"] for entry in rounds]
        groups: dict[tuple[int, ...], list[str]] = {}
        for site in sites:  # equal lines would hide each other: they share one, and one label
            values = tuple(entry["subjects_used"].get(site.slug, 0) for entry in rounds)
            groups.setdefault(values, []).append(site.title)
        top = max(max(values) for values in groups) or 1
        axes.set_ylim(0, top * 1.22)
        axes.set_xlim(numbers[0] - 0.4, numbers[-1] + max(1, len(numbers)) * (0.36 if narrow else 0.2))
        places = _apart([values[-1] for values in groups], top * 0.09)
        for number, (y, (values, titles)) in enumerate(zip(places, groups.items(), strict=True)):
            colour = SITE_COLOURS[number]
            axes.plot(numbers, values, drawstyle="steps-mid", color=colour, linewidth=2.2)
            axes.plot(numbers, values, "o", color=colour, markersize=3.5)
            label = "\n".join(titles) + f" {values[-1]}"
            axes.text(numbers[-1] + len(numbers) * 0.025, y, label, color=colour, fontsize=9.5, va="center")
        _mark_changes(axes, changes)
        axes.set_xlabel("round")
        axes.set_ylabel("permitted in the round")
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        _whole_ticks(axes, numbers, narrow=narrow)

    return draw


def value_waterfall(sites: Sequence[Site], v_empty: float, v_all: float) -> Draw:
    """From the first model's quality to the last one's, each site adding its part."""

    def draw(axes: Axes, narrow: bool) -> None:
        names = ["first model", *(site.title for site in sites), "last model"]
        level, rows = v_empty, list(range(len(names) - 1, -1, -1))
        levels = [v_empty, v_all]
        for row, site in zip(rows[1:-1], sites, strict=True):
            value = site.figures["value"]
            colour = GOOD if value >= 0 else BAD
            axes.barh([row], [value], left=[level], height=0.58, color=colour, alpha=0.9)
            axes.plot([level + value] * 2, [row - 0.29, row - 1.29], color=MUTED, linewidth=0.9)
            end = max(level, level + value)
            axes.annotate(
                signed_text(value, 4), (end, row), (5, 0), textcoords="offset points", va="center", color=colour,
                fontsize=9.5, fontweight="bold",
            )  # fmt: skip
            level += value
            levels.append(level)
        low, high = min(levels), max(levels)
        span = high - low or 0.01
        for row, value in ((rows[0], v_empty), (rows[-1], v_all)):
            axes.plot([value, value], [row - 0.29, row + 0.29], color=INK, linewidth=3)
            axes.annotate(
                f"{value:.3f}".replace("-", MINUS), (value, row), (7, 0), textcoords="offset points", va="center",
                color=INK, fontsize=9.5, fontweight="bold",
            )  # fmt: skip
        axes.plot([v_empty] * 2, [rows[0] - 0.29, rows[0] - 1.29], color=MUTED, linewidth=0.9)
        axes.set_xlim(low - 0.06 * span, high + (0.3 if narrow else 0.16) * span)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticks(rows, names, color=INK, fontsize=10.5)
        axes.set_xlabel("minus log loss (nats)" if narrow else "quality on the sponsor's rows: minus log loss (nats)")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.8)

    return draw


def _mark_changes(axes: Axes, changes: Mapping[int, str]) -> None:
    for number, words in changes.items():
        if not axes.get_xlim()[0] < number - 0.5 < axes.get_xlim()[1]:
            continue
        axes.axvline(number - 0.5, color=BAD, linewidth=1.2, linestyle=(0, (2, 2)))
        left, right = axes.get_xlim()
        late = number - 0.5 - left > (right - left) / 2
        axes.text(
            number - 0.5 + (-0.15 if late else 0.15), 0.985, words, transform=axes.get_xaxis_transform(), color=BAD,
            fontsize=9, va="top", ha="right" if late else "left",
        )  # fmt: skip


def _whole_ticks(axes: Axes, numbers: Sequence[int], *, narrow: bool) -> None:
    step = max(1, -(-len(numbers) // (8 if narrow else 16)))
    axes.set_xticks(list(numbers)[::step])


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The values, moved up just so far that labels do not overlap."""
    placed = [0.0] * len(values)
    last = float("-inf")
    for place in sorted(range(len(values)), key=lambda index: values[index]):
        last = max(values[place], last + gap)
        placed[place] = last
    return placed
