"""HTML from the templates beside this module: every text in it is escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from squeezekit.report import numbers
from squeezekit.text import encodable


def render(template: str, **values: object) -> str:
    """The text of a template, such as "page.html.jinja", filled in with values by name."""
    environment = Environment(
        loader=PackageLoader("squeezekit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "size": numbers.size,
        "many": numbers.many,
        "times": numbers.times,
        "percent": numbers.percent,
        "points": numbers.points,
        "share": numbers.share,
        "shown": numbers.shown,
        "duration": numbers.duration,
    }
    # Paths come in from everywhere, and a page must be encodable at the end of a long training.
    return encodable(environment.get_template(template).render(**values))
