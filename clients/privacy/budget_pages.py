"""The budget as pages with a picture: what a study would cost, and what the past has cost."""

from collections.abc import Sequence

from clients.pages.page import render
from clients.pages.pictures import BAD, GRID, INK, MUTED, NETWORK, POOLED, Axes, Draw, picture
from clients.privacy.budget_chain import Terms
from clients.privacy.forecast import Forecast, Step


def forecast_page(forecast: Forecast, *, made_at: str) -> str:
    """The page of :func:`clients.privacy.forecast.forecast`."""
    lifetime = float(forecast.terms.epsilon)
    series = [("everything together", forecast.curve, NETWORK), ("this study by itself", forecast.alone, POOLED)]
    chart = picture(
        "forecast",
        f"Epsilon over {len(forecast.curve)} rounds, {forecast.curve[-1]:.2f} at the end; the lifetime is {lifetime:g}",
        _curves(series, lifetime, "round", refused=forecast.refused),
        height=3.4,
    )
    return render("clients.privacy", "forecast.html", forecast=forecast, chart=chart, made_at=made_at)


def history_page(steps: Sequence[Step], terms: Terms, *, made_at: str) -> str:
    """The page of :func:`clients.privacy.forecast.steps`."""
    spent = [step.epsilon for step in steps]
    chart = picture(
        "history",
        f"Epsilon after each of {len(steps)} rows, now {spent[-1]:.2f}; the lifetime is {float(terms.epsilon):g}",
        _curves([("spent", spent, NETWORK)], float(terms.epsilon), "row of the ledger", refused=None),
        height=3.4,
    )
    return render("clients.privacy", "history.html", steps=steps, terms=terms, chart=chart, made_at=made_at)


def _curves(
    series: Sequence[tuple[str, Sequence[float], str]], lifetime: float, label: str, *, refused: int | None
) -> Draw:
    """Lines over the count, and the lifetime as a wall."""

    def draw(axes: Axes, narrow: bool) -> None:
        top = 1.12 * max(lifetime, *(value for _, values, _ in series for value in values))
        for name, values, colour in series:
            axes.plot(
                range(1, len(values) + 1), values, color=colour, linewidth=2.2, label=name, marker="o", markersize=3
            )
        axes.axhline(lifetime, color=INK, linewidth=1.6)
        axes.annotate(
            f"lifetime {lifetime:g}", (1, lifetime), (0, 4), textcoords="offset points", color=INK, fontsize=9
        )
        if refused is not None:
            last = len(series[0][1])
            axes.axvspan(refused - 0.5, last + 0.5, color=BAD, alpha=0.12, linewidth=0)
            axes.annotate(
                "refused" if narrow else "refused before training",
                (refused - 0.4, 0),
                (0, 4),
                textcoords="offset points",
                color=BAD,
                fontsize=9,
            )
        axes.set_ylim(0, top)
        axes.set_xlabel(label)
        axes.set_ylabel("epsilon", color=MUTED)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.legend(frameon=False, labelcolor=INK, loc="lower right")

    return draw
