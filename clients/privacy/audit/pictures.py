"""The audit's pictures: what was claimed and what could be proven, who could be told apart, what could be read back."""

from collections.abc import Sequence

import numpy as np

from clients.pages.pictures import BAD, GOOD, GRID, INK, MUTED, NETWORK, POOLED, Axes, Draw
from clients.privacy.audit.canary_attack import CanaryResult
from clients.privacy.audit.inversion import Inversion
from clients.privacy.audit.membership import Membership
from federation.rules.fixedpoint import Floats


def bounds(canaries: CanaryResult) -> Draw:
    """Bars of what was proven, marks of what is claimed."""
    rows = (
        ("proven, whatever the mechanism", canaries.lower, canaries.claimed),
        ("proven, for Gaussian noise", canaries.lower_gaussian, canaries.claimed_pld),
    )

    def draw(axes: Axes, narrow: bool) -> None:
        top = 1.3 * max(canaries.claimed, *(proven for _, proven, _ in rows))
        for row, (_, proven, claim) in enumerate(reversed(rows)):
            colour = BAD if proven > claim else NETWORK
            axes.barh([row], [proven], height=0.5, color=colour)
            axes.plot([claim, claim], [row - 0.38, row + 0.38], color=INK, linewidth=2.5)
            axes.annotate(
                f"{proven:.2f}", (proven, row), (5, 0), textcoords="offset points", va="center", color=colour,
                fontweight="bold",
            )  # fmt: skip
            axes.annotate(
                f"claimed {claim:.2f}", (claim, row + 0.38), (4, -2), textcoords="offset points", va="top", color=INK,
                fontsize=9,
            )  # fmt: skip
        axes.set_xlim(0, top)
        axes.set_ylim(-0.6, len(rows) - 0.35)
        labels = [title.replace(", ", ",\n") if narrow else title for title, _, _ in reversed(rows)]
        axes.set_yticks(range(len(rows)), labels, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"epsilon at delta {canaries.delta:g}")
        axes.grid(axis="x", color=GRID, linewidth=0.8)

    return draw


def scores(canaries: CanaryResult) -> Draw:
    """How the adversary's scores of present and absent canaries overlap: the more, the better the privacy."""

    def draw(axes: Axes, narrow: bool) -> None:
        both = np.concatenate([canaries.present, canaries.absent])
        low, high = (float(edge) for edge in np.quantile(both, [0.001, 0.999]))
        bins = np.linspace(low, max(high, low + 1e-9), 30 if narrow else 60)
        for values, label, colour in ((canaries.absent, "absent", MUTED), (canaries.present, "present", POOLED)):
            share, edges = np.histogram(values, bins=bins)
            axes.stairs(share / len(values), edges, color=colour, linewidth=2, label=label)
        axes.set_xlabel("score (1 is a person's whole contribution)" if narrow else "the adversary's score of a canary")
        axes.set_yticks([])
        axes.legend(frameon=False, labelcolor=INK, loc="upper right")

    return draw


def roc(memberships: Sequence[Membership]) -> Draw:
    """ROC curves on a logarithmic axis: what matters is few false accusations (Carlini et al. 2022)."""
    floor = 1e-3

    def draw(axes: Axes, narrow: bool) -> None:
        guess = np.geomspace(floor, 1, 50)
        axes.plot(guess, guess, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="a guess")
        for found, colour in zip(memberships, (BAD, GOOD), strict=False):
            at = _rates(found.false_positives, found.true_positives, guess)
            label = f"{found.title} (AUC {found.auc:.2f})"
            axes.plot(guess, np.maximum(at, floor), color=colour, linewidth=2.2, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(floor, 1)
        axes.set_ylim(floor, 1.05)
        axes.set_xlabel("wrongly accused")
        axes.set_ylabel("members found")
        axes.grid(color=GRID, linewidth=0.8)
        axes.legend(
            frameon=False, labelcolor=INK, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0),
            ncols=1 if narrow else 3,
        )  # fmt: skip

    return draw


def panels(drawn: Inversion) -> Draw:
    """The record, and what could be drawn of it without and with privacy."""
    parts = (
        ("the record", drawn.record),
        ("read back without privacy", drawn.without),
        ("read back with privacy", drawn.with_privacy),
    )

    def draw(axes: Axes, narrow: bool) -> None:
        side, gap = len(drawn.record), 2
        for place, (title, image) in enumerate(parts):
            left, top = (0, place * (side + 2 * gap)) if narrow else (place * (side + gap), 0)
            axes.imshow(
                image, cmap="gray", vmin=-1, vmax=1, extent=(left, left + side, top + side, top),
                interpolation="nearest",
            )  # fmt: skip
            axes.text(left + side / 2, top - 0.6, title, ha="center", color=INK, fontsize=10)
        wide, high = (side, 3 * side + 4 * gap) if narrow else (3 * side + 2 * gap, side)
        axes.set_xlim(-0.2, wide + 0.2)
        axes.set_ylim(high + 0.2, -gap)
        axes.set_axis_off()

    return draw


def _rates(false_positives: Floats, true_positives: Floats, at: Floats) -> Floats:
    """True positives at given false positives, of a curve that only rises."""
    places = np.searchsorted(false_positives, at, side="right") - 1
    found: Floats = true_positives[places]
    return found
