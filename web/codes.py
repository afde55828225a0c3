"""QR codes and barcodes as SVG without any style of its own, which the pages' policy wouldn't let through."""

import barcode
import segno
from markupsafe import Markup

QUIET = 10
"""Modules of white at each end of a Code 128, without which scanners don't find it."""


def qr(text: str) -> Markup:
    """Draw a QR code as large as its box."""
    return Markup(segno.make(text, micro=False).svg_inline(border=2, omitsize=True, svgclass="qr", lineclass=None))  # noqa: S704 (a drawing of ours)


def code128(text: str) -> Markup:
    """Draw a Code 128 as wide as its box."""
    (modules,) = barcode.get("code128", text).build()
    bars = "".join(f"M{at + QUIET} 0v1h1v-1z" for at, module in enumerate(modules) if module == "1")
    box = f'viewBox="0 0 {len(modules) + 2 * QUIET} 1" preserveAspectRatio="none"'
    return Markup(f'<svg class="bars" {box} shape-rendering="crispEdges"><path d="{bars}"></path></svg>')  # noqa: S704 (a drawing of ours)
