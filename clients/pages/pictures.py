"""Pictures for pages: matplotlib, drawn to SVG that stands inside the page.

Colours are the page's own: a chart is drawn in stand-in colours, which become CSS variables, so that light and dark
need one picture. Text stays text (it can be found and copied). Every chart is drawn twice, for a wide screen and for a
phone, because a chart that only shrinks cannot be read on the smaller one; the page shows the one that fits.
"""

import io
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from markupsafe import Markup

WIDE_INCH: Final = 8.8
NARROW_INCH: Final = 4.6

INK, MUTED, GRID, PAPER, ALONE, NETWORK, POOLED, GOOD, BAD, SOFT = (f"#0101{shade:02x}" for shade in range(16, 26))
SITE_COLOURS: Final = tuple(f"#0102{shade:02x}" for shade in range(16, 30))
_VARIABLES: Final = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    ALONE: "--alone",
    NETWORK: "--network",
    POOLED: "--pooled",
    GOOD: "--good",
    BAD: "--bad",
    SOFT: "--soft",
} | {colour: f"--site-{number % 6}" for number, colour in enumerate(SITE_COLOURS)}

Axes: TypeAlias = Any  # matplotlib ships no complete types
Draw: TypeAlias = Callable[[Axes, bool], None]


def picture(name: str, description: str, draw: Draw, *, height: float, narrow_height: float | None = None) -> Markup:
    """A chart in both widths.

    Args:
        name: of the figure, a CSS class.
        description: what a person who cannot see it needs to know.
        draw: paints on axes; its second argument says whether this is the narrow version.
        height: in inches.
        narrow_height: in inches, when it differs.
    """
    wide = _svg(name, description, draw, (WIDE_INCH, height), narrow=False)
    narrow = _svg(name, description, draw, (NARROW_INCH, narrow_height or height), narrow=True)
    return Markup('<div class="chart wide">{}</div><div class="chart narrow">{}</div>').format(wide, narrow)


def _svg(name: str, description: str, draw: Draw, size: tuple[float, float], *, narrow: bool) -> Markup:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{name}-{narrow}",
        "font.size": 10,
        "axes.axisbelow": True,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes, narrow)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name, description)


def _inline(svg: str, name: str, description: str) -> Markup:
    """A stand-alone SVG file -> an element of the page: no prologue, no unused ids, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"| version="1.1"', "", svg, count=3).replace("xlink:href", "href")
    label = Markup.escape(description)
    opened = f'<svg role="img" aria-label="{label}" class="{name}"'
    return Markup(svg.replace("<svg", opened, 1))  # noqa: S704 - our own drawing; every label in it was escaped by matplotlib
