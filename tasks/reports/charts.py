"""Draw a report's charts as SVG that stands within the page: the same bytes for the same numbers.

Colours are those of the page, light or dark: matplotlib draws with stand-ins, which become variables of the page's
style. Texts stay texts.
"""

import io
import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup, escape

from model.evaluation.likeness import Marginal
from tasks.monitoring.contracts import NightRecord
from tasks.reports.held_out import Curve

PANELS_ACROSS, MAX_PANELS, LABEL_LETTERS = 3, 12, 12
INK, FAINT, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206"
STAND_INS = {INK: "var(--ink)", FAINT: "var(--faint)", FIRST: "var(--first)", SECOND: "var(--second)"}
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def chart(
    name: str, described: str, draw: Callable[[Any], None], height: float = 2.7, panels: tuple[int, int] = (1, 1)
) -> Markup:
    """Return a chart as an SVG element; `name` sets its ids apart from those of others on the page.

    `draw` draws on matplotlib's axes, of several panels (rows, columns) on an array of them; `described` is read to
    those who do not see it. Height in inches, of 6 in width.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(6, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots(*panels))
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(written.getvalue(), name, described)


def _inline(svg: str, name: str, described: str) -> Markup:
    """Return the element alone, as wide as the page lets it be, with ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening
    assert box
    referred = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in referred else "", svg[opening.end() :])
    for found in sorted(referred):
        svg = svg.replace(f'id="{found}"', f'id="{name}-{found}"').replace(f"#{found}", f"#{name}-{found}")
    svg = re.sub(r"\bxlink:href=", "href=", svg)
    for stand_in, variable in STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r"\n\s*", "\n", svg)
    return Markup(f'<svg xmlns="http://www.w3.org/2000/svg" {box[0]} role="img" aria-label="{escape(described)}">{svg}')


def calibration_chart(curve: Curve, event: str) -> Markup:
    """Return the chart of how often what was given a probability came true; `event` names the share."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="as promised")
        axes.plot(curve.predicted, curve.true, color=FIRST, marker="o", markersize=4, label="as it came")
        axes.set(xlabel="predicted probability, mean of a bin", ylabel=event, xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")

    pairs = "; ".join(f"{given:.2f} came {came:.2f}" for given, came in zip(curve.predicted, curve.true, strict=True))
    return chart("calibration", f"Calibration, predicted and true share by bin: {pairs}", draw, height=3.2)


def nights_chart(nights: Sequence[NightRecord], metric: str, reference: float | None) -> Markup | None:
    """Return the chart of the nights' metric, beside what held-out rows promised; None where none is measured."""
    measured = [(each.as_of, each.truth.value) for each in nights if each.truth and each.truth.value is not None]
    if not measured:
        return None
    days, values = [day for day, _ in measured], [value for _, value in measured]

    def draw(axes: Any) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        axes.plot(days, values, color=FIRST, marker="o", markersize=3, linewidth=1.2, label="by night, published")
        if reference is not None:
            axes.axhline(reference, color=SECOND, linewidth=1, linestyle="--", label="this model, held-out rows")
        locator = AutoDateLocator(minticks=3, maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set(ylabel=metric)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    described = f"{metric} of {len(values)} nights, {days[0]} to {days[-1]}: {min(values):.4f} to {max(values):.4f}"
    return chart("nights", described, draw)


def learning_chart(epochs: Sequence[float], train: Sequence[float], val: Sequence[float]) -> Markup | None:
    """Return the chart of the losses by epoch; None where nothing was learnt step by step."""
    if not epochs:
        return None

    def draw(axes: Any) -> None:
        axes.plot(epochs, train, color=SECOND, marker="o", markersize=3, label="training rows")
        axes.plot(epochs, val, color=FIRST, marker="o", markersize=3, label="validation rows")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    described = f"Loss after {epochs[-1]:g} epochs: {train[-1]:.4f} on training rows, {val[-1]:.4f} on validation rows"
    return chart("learning", described, draw)


def made_rows_chart(columns: Sequence[Marginal]) -> Markup:
    """Return the chart of each column by itself, among held-out and among made rows."""
    shown = columns[:MAX_PANELS]
    n_rows = -(-len(shown) // PANELS_ACROSS)

    def draw(panels: Any) -> None:
        for axes, each in zip_longest(panels.ravel(), shown):
            if each is None:
                axes.set_axis_off()
                continue
            places = range(len(each.shares))
            for values, color, marker, label in (
                ([share.real for share in each.shares], FIRST, "o", "held-out"),
                ([share.made for share in each.shares], SECOND, "x", "made"),
            ):
                axes.plot(places, values, color=color, marker=marker, markersize=3, linewidth=0.8, label=label)
            axes.set_title(each.column, fontsize=9)
            step = max(1, len(each.shares) // 5)
            labels = [_short(share.value) for share in each.shares][::step]
            axes.set_xticks(places[::step], labels, rotation=60, ha="right", fontsize=6)
            axes.tick_params(axis="y", labelsize=7)
            axes.set_ylim(0)
        panels.ravel()[0].legend(fontsize=7)

    differences = ", ".join(f"{each.column} {each.difference:.3f}" for each in columns)
    described = f"Shares of values by column, of held-out and of made rows; these differ by: {differences}"
    return chart("made-rows", described, draw, height=1.7 * n_rows, panels=(n_rows, PANELS_ACROSS))


def _short(text: str) -> str:
    return text if len(text) <= LABEL_LETTERS else f"{text[: LABEL_LETTERS - 1]}…"
