"""A page from a template: escaped by default, the one style sheet inside, an error for a name that is missing."""

from typing import Any, Final

import jinja2

STYLE: Final = "report.css"
"""The style sheet, to be included by every page's template."""


def environment(package: str) -> jinja2.Environment:
    """Templates of ``package`` (in its folder ``templates``), beside the shared style sheet."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("clients.pages")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(package: str, template: str, **values: Any) -> str:
    """The HTML of one page."""
    return environment(package).get_template(template).render(**values)
