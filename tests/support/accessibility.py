"""Rules of accessibility, as axe knows them."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Frame, Page


def violations(page: Page | Frame, within: str | None = None, *, without: str | None = None) -> list[str]:
    """The rules that a page breaks, or the part of it that matches ``within``, or all but that which matches
    ``without``."""
    context: Any = {"exclude": [[without]]} if without is not None else within
    results = Axe().run(page, context=context).response
    # Contrast that cannot be judged is as bad: something lies over the text, or it is out of sight.
    found = results["violations"] + [rule for rule in results["incomplete"] if rule["id"] == "color-contrast"]
    return [f"{rule['id']}: {[_reason(node) for node in rule['nodes'][:3]]}" for rule in found]


def _reason(node: Any) -> str:
    return f"{node['html'][:150]} {[check['message'] for check in node['any']]}"
