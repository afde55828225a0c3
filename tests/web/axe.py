"""What axe-core says of a page."""

from playwright.sync_api import Page

from infra.assets import INSTALLED

AXE = INSTALLED / "axe-core" / "axe.min.js"


def violations(page: Page) -> list[str]:
    """Name what axe-core finds on a page against WCAG 2.2 AA and good practice; a policy may not stand in its way."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document)")
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]
