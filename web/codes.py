"""QR codes and barcodes as SVG without any style of its own, which the pages' policy wouldn't let through."""

import segno
from markupsafe import Markup

QUIET = 10
"""Modules of white at each end of a Code 128, without which scanners don't find it."""

WIDTHS = {"A": 1, "B": 2, "C": 3, "D": 4}
"""Modules by the letters that bars (large) and the spaces between them (small) are given as."""


def qr(text: str) -> Markup:
    """Draw a QR code as large as its box."""
    return Markup(segno.make(text, micro=False).svg_inline(border=2, omitsize=True, svgclass="qr", lineclass=None))  # noqa: S704 (a drawing of ours)


def code128(text: str) -> Markup:
    """Draw a Code 128 as wide as its box."""
    from reportlab.graphics.barcode.code128 import Code128  # noqa: PLC0415 (12 MB, which most workers never need)

    drawn = Code128(text, quiet=False)
    for step in (drawn.validate, drawn.encode, drawn.decompose):
        step()
    modules = "".join(("1" if width.isupper() else "0") * WIDTHS[width.upper()] for width in drawn.decomposed)
    bars = "".join(f"M{at + QUIET} 0v1h1v-1z" for at, module in enumerate(modules) if module == "1")
    box = f'viewBox="0 0 {len(modules) + 2 * QUIET} 1" preserveAspectRatio="none"'
    return Markup(f'<svg class="bars" {box} shape-rendering="crispEdges"><path d="{bars}"></path></svg>')  # noqa: S704 (a drawing of ours)
