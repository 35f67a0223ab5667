"""The page as one HTML file that needs nothing else: no script, no network, images inside."""

from __future__ import annotations

import base64
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from palimpsest.report.blocks import Page


def render(page: Page) -> str:
    """All text is escaped; what the page shows can neither run nor load anything."""
    package = files("palimpsest.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"inline": _inline, "soft": _soft}
    template = environment.from_string(package.joinpath("template.html").read_text(encoding="utf-8"))
    style = Markup(package.joinpath("style.css").read_text(encoding="utf-8"))  # our own file
    return template.render(page=page, style=style)


def _soft(text: str) -> Markup:
    """Escaped, and breakable after an underscore."""
    return Markup(escape(text).replace("_", Markup("_<wbr>")))


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
