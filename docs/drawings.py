"""Draws the pictures of the documentation: `python docs/drawings.py`.

They are SVG, so that text stays text. Inside the site they are part of the page and take its
colours, light or dark; elsewhere, as in the README, they follow what the reader's system prefers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / "_static"
STYLE = """
.weft-drawing { --ink: #1f2328; --soft: #59636e; --accent: #0969da; --fill: #0969da22;
  font: 14px system-ui, sans-serif; fill: currentColor;
  color: var(--color-foreground-primary, var(--ink)); }
@media (prefers-color-scheme: dark) {
  .weft-drawing { --ink: #e6edf3; --soft: #9198a1; --accent: #4493f8; --fill: #4493f833; } }
body[data-theme="light"] .weft-drawing { --soft: #59636e; --accent: #0969da; --fill: #0969da22; }
body[data-theme="dark"] .weft-drawing { --soft: #9198a1; --accent: #4493f8; --fill: #4493f833; }
.weft-drawing .soft { fill: var(--soft); }
.weft-drawing .mono { font: 13px ui-monospace, monospace; }
.weft-drawing .bold { font-weight: 600; }
.weft-drawing .mid { text-anchor: middle; }
.weft-drawing .end { text-anchor: end; }
.weft-drawing .box { fill: none; stroke: currentColor; stroke-width: 1.2; }
.weft-drawing .full { fill: var(--fill); stroke: var(--accent); stroke-width: 1.2; }
.weft-drawing .line { fill: none; stroke: var(--soft); stroke-width: 1.4; }
.weft-drawing .dash { stroke-dasharray: 4 4; }
.weft-drawing .bar { fill: var(--soft); opacity: 0.55; }
.weft-drawing .ours { fill: var(--accent); }
"""


# -- pieces


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(words)}</text>'


def box(
    x: float, y: float, width: float, height: float, words: str = "", style: str = "box"
) -> str:
    """A box with lines of text in its middle."""
    lines = words.split("\n") if words else []
    first = y + height / 2 + 5 - 9 * (len(lines) - 1)
    rect = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{style}"/>'
    )
    middle = x + width / 2
    return rect + "".join(text(middle, first + 18 * i, w, "mid") for i, w in enumerate(lines))


def arrow(*points: tuple[float, float], style: str = "line") -> str:
    """A line through points with a head at its end."""
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="{path}" class="{style}" marker-end="url(#weft-head)"/>'


def drawing(width: int, height: int, title: str, pieces: Iterable[str]) -> str:
    """Returns a whole picture; the title is for those who do not see it."""
    head = (
        '<marker id="weft-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 Z" class="soft"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width: 100%; height: auto" class="weft-drawing" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<defs>{head}</defs>\n"
        + "\n".join(pieces)
        + "\n</svg>\n"
    )


# -- pictures


def dispatch_costs() -> dict[str, float]:
    """Returns what a forward pass of 20 layers costs, × raw `jax.jit`, from the published table."""
    page = (HERE / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    header = next(row for row in rows if row[:2] == ["call", "raw"])
    row = next(row for row in rows if row[0] == "forward, depth 20")
    found = dict(zip(header, row, strict=True))
    peers = {name: float(value) for name, value in found.items() if name.startswith(("fl", "eq"))}
    ours = re.match(r"[\d.]+", found["Weft ÷ raw (95%)"])
    assert ours is not None
    return {"raw jax.jit": 1.0, "Weft nnx.jit": float(ours[0]), **peers}


def dispatch() -> str:
    return bars(
        "What a call costs: forward pass of 20 small layers, time ÷ that of raw jax.jit",
        dispatch_costs(),
        ours="Weft nnx.jit",
    )


def bars(title: str, values: Mapping[str, float], ours: str) -> str:
    """Horizontal bars with their numbers, longest last."""
    left, width, step = 190, 440, 30
    pieces = [text(10, 22, title, "bold")]
    longest = max(values.values())
    for i, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        y = 44 + i * step
        long = max(2.0, width * value / longest)
        kind = "ours" if name == ours else "bar"
        pieces += [
            text(left - 10, y + 15, name, "end bold" if name == ours else "end"),
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="20" rx="3" class="{kind}"/>',
            text(left + long + 8, y + 15, f"{value:.1f} ×", "soft"),
        ]
    return drawing(700, 52 + step * len(values), title, pieces)


def round_trip() -> str:
    """How a call goes: objects to arrays, through JAX, and back onto the same objects."""
    return drawing(
        720,
        250,
        "The caller's objects are taken apart, JAX transforms a pure function, writes come back",
        [
            box(10, 40, 160, 70, "your objects\nmodel, optimizer"),
            arrow((170, 75), (262, 75)),
            text(216, 64, "walk", "mid soft"),
            box(265, 40, 180, 70, "structure\n+ arrays in groups"),
            arrow((445, 75), (528, 75)),
            text(487, 64, "lift", "mid soft"),
            box(530, 10, 180, 130, "", "full"),
            text(620, 34, "a JAX transformation", "mid bold"),
            text(620, 62, "make the objects anew", "mid"),
            text(620, 86, "run your function", "mid"),
            text(620, 110, "walk again", "mid"),
            arrow((620, 140), (620, 200), (448, 200)),
            box(265, 175, 180, 50, "what was written"),
            arrow((265, 200), (90, 200), (90, 113)),
            text(178, 190, "onto the same objects", "mid soft"),
        ],
    )


def walk() -> str:
    """The walk numbers objects; what is met again is a reference."""
    return drawing(
        720,
        270,
        "The walk numbers objects as it meets them; a shared layer gets one number",
        [
            text(120, 22, "your objects", "mid bold"),
            box(60, 40, 120, 40, "Sequential"),
            box(10, 130, 100, 40, "Linear"),
            box(150, 130, 80, 40, "relu"),
            arrow((95, 80), (60, 128)),
            arrow((120, 80), (185, 128)),
            arrow((150, 80), (150, 105), (85, 105), (70, 128), style="line dash"),
            box(5, 215, 55, 36, "kernel", "full"),
            box(66, 215, 50, 36, "bias", "full"),
            arrow((45, 170), (33, 213)),
            arrow((75, 170), (90, 213)),
            text(460, 22, "GraphDef: structure, without arrays", "mid bold"),
            text(270, 60, "0  Sequential", "mono"),
            text(290, 84, "layers  →  1  List", "mono"),
            text(310, 108, "0  →  2  Linear, in_features=2, …", "mono"),
            text(350, 132, "bias  →  3  Param, leaf 0", "mono"),
            text(350, 156, "kernel  →  4  Param, leaf 1", "mono"),
            text(310, 180, "1  →  static: relu", "mono"),
            text(310, 204, "2  →  a reference to 2", "mono"),
            text(270, 243, "State: leaf 0, leaf 1", "bold"),
            box(440, 220, 55, 36, "bias", "full"),
            box(500, 220, 60, 36, "kernel", "full"),
        ],
    )


def lift() -> str:
    """A prefix says which group a leaf goes to: the example is vmap."""
    return drawing(
        720,
        230,
        "A prefix descends with the walk and says which group each leaf belongs to",
        [
            text(110, 22, "what you say", "mid bold"),
            text(10, 60, "nnx.vmap(f, in_axes=(", "mono"),
            text(30, 84, "nnx.StateAxes({", "mono"),
            text(50, 108, "nnx.Param: 0,", "mono"),
            text(50, 132, "...: None}),", "mono"),
            text(30, 156, "0))", "mono"),
            arrow((235, 100), (290, 100)),
            text(375, 22, "groups of leaves", "mid bold"),
            box(295, 50, 160, 60, "axis 0\nparams, x", "full"),
            box(295, 125, 160, 60, "not mapped\nthe rest"),
            arrow((455, 80), (520, 110)),
            arrow((455, 155), (520, 125)),
            text(615, 22, "what JAX is given", "mid bold"),
            box(525, 85, 185, 64, "jax.vmap(pure,\nin_axes=(0, None))"),
        ],
    )


def plan() -> str:
    """The first call walks and leaves a plan; later calls go straight to the program."""
    return drawing(
        720,
        230,
        "The first call walks the objects and leaves a plan; later calls use it",
        [
            box(10, 90, 120, 50, "f(model, x)"),
            arrow((130, 105), (180, 60)),
            text(125, 66, "first", "soft"),
            box(182, 30, 130, 50, "walk the\nobjects"),
            arrow((312, 55), (362, 55)),
            box(364, 30, 130, 50, "trace,\ncompile"),
            arrow((494, 55), (560, 100)),
            text(312, 105, "leaves a plan with the model", "soft"),
            arrow((247, 80), (247, 150), style="line dash"),
            arrow((130, 125), (180, 170)),
            text(118, 172, "again", "soft"),
            box(182, 152, 130, 50, "plan: which\narrays, in order", "full"),
            arrow((312, 177), (362, 177)),
            box(364, 152, 130, 50, "gather\nthe arrays"),
            arrow((494, 177), (560, 132)),
            box(562, 90, 148, 50, "run the program"),
        ],
    )


def lease() -> str:
    """Who may have its array overwritten: nobody else was handed it."""
    return drawing(
        720,
        215,
        "An array may be overwritten by the next call until somebody reads it",
        [
            box(10, 20, 200, 60, "the program wrote an array\nand the Variable holds it"),
            arrow((210, 50), (268, 50)),
            box(270, 20, 180, 60, "lease: the next call\nmay overwrite it", "full"),
            arrow((450, 50), (508, 50)),
            box(510, 20, 200, 60, "next call: donated,\nno new memory"),
            arrow((360, 80), (360, 133)),
            text(370, 112, "somebody reads it: value, split, …", "soft"),
            box(270, 135, 180, 60, "no lease: the array\nis the reader's, too"),
            arrow((450, 165), (508, 165)),
            box(510, 135, 200, 60, "next call: copied before,\nthe reader's stays as it is"),
        ],
    )


PICTURES = {f.__name__: f for f in (dispatch, round_trip, walk, lift, plan, lease)}


def main() -> None:
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
