"""How the site is made of these pages and of the docstrings: `nox -s docs`. Nothing here needs a network."""

from __future__ import annotations

import inspect
import sys
from types import NoneType
from typing import TYPE_CHECKING, Any

import attrs
from docutils import nodes

import kling_async

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "kling-async"
author = "kling-async maintainers"
project_copyright = f"2026, {author}; Apache-2.0"
version = release = kling_async.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
nitpicky = True
default_role = (
    "py:obj"  # docstrings write `Task.images`; what is no public name is shown as code, see *resolve*
)
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # the changelog's levels are those of a whole page

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

pygments_style = "github-light"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = f"kling-async {release}"
html_static_path = ["_static"]
html_css_files = ["kling.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b53", "color-brand-content": "#0b6b53"},
    "dark_css_variables": {"color-brand-primary": "#4fd1a5", "color-brand-content": "#4fd1a5"},
}
html_show_sphinx = False

# Made by the package and never by its users, so nobody wants to see how.
MADE_HERE = frozenset(
    {
        "AccountResource",
        "Batch",
        "BookedTask",
        "CallbackCounts",
        "CallbackRecord",
        "Callbacks",
        "Intake",
        "MultiImageResource",
        "RawReplies",
        "RawReply",
        "RequestRecord",
        "RunningEmulator",
        "SlotStore",
        "TaskHandle",
    }
)
# Arguments that nobody else gives: clocks for tests, what lets a picture fetch itself, and a journal that is asked later.
FOR_TESTS = frozenset({"_clock", "_now", "_keeper", "_past"})
# Where the standard library has what annotations call by a short name.
SHORT = {
    "datetime": "datetime.datetime",
    "Decimal": "decimal.Decimal",
    "Path": "pathlib.Path",
    "PathLike": "os.PathLike",
}
# Without a page of their own: other packages' classes, and shorthands that the texts explain.
PLAIN = ("aiohttp.", "pytest.", "prometheus_client.", "opentelemetry.")
SHORTHANDS = frozenset(
    {
        "CollectorRegistry",
        "Engine",
        "ForeignLoad",
        "Images",
        "Input",
        "Live",
        "MultiImageFields",
        "Asked",
        "Reply",
        "Route",
        "Script",
        "StandIn",
        "T",
        "TaskSeconds",
        "TracerProvider",
        "Watcher",
    }
)


def without_constructor(obj: Any) -> bool:
    """Tell whether only the package makes objects of the class *obj*."""
    return obj.__name__ in MADE_HERE or issubclass(obj, BaseException)


def fields_of(cls: type[attrs.AttrsInstance]) -> str:
    """Return the fields of an attrs class as a signature: their types are those that are read, not those that are taken."""
    shown = []
    keyword_only = False
    for each in attrs.fields(cls):
        if not each.init or each.name in FOR_TESTS:
            continue
        if each.kw_only and not keyword_only:
            keyword_only = True
            shown.append("*")
        text = f"{each.alias}: {annotation(each.type)}"
        if each.default is not attrs.NOTHING:
            is_plain = isinstance(each.default, str | int | float | None)
            text += f" = {each.default!r}" if is_plain else " = ..."
        shown.append(text)
    return f"({', '.join(shown)})"


def annotation(found: object) -> str:
    """Return a type as it is written, without modules and without quotation marks."""
    if found in (None, NoneType):
        return "None"
    return found if isinstance(found, str) else inspect.formatannotation(found).replace("kling_async.", "")


def sign(
    _app: Sphinx,
    kind: str,
    _name: str,
    obj: Any,
    _options: object,
    _signature: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Show values by their fields, and what only the package makes without a constructor."""
    if kind not in {"class", "exception"} or not isinstance(obj, type):
        return None
    if without_constructor(obj):
        return "", None
    if attrs.has(obj) and inspect.getfile(obj.__init__).startswith("<attrs generated"):
        return fields_of(obj), returned
    return None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.Node | None:
    """Find what docstrings and annotations call by a short name, here or in Python; code in a docstring stays code."""
    if node.get("refdomain") != "py":
        return None
    target = SHORT.get(node["reftarget"], node["reftarget"]).removesuffix("()")
    short = target.rpartition(".")[2]
    module = target.rpartition(".")[0]
    if module.partition(".")[0] in sys.stdlib_module_names:
        address = f"https://docs.python.org/3/library/{module}.html#{target}"
        return nodes.reference("", "", shown, internal=False, refuri=address)
    objects = env.domains.python_domain.objects
    wanted = short if target.startswith("kling_async.") else target
    found = [name for name in objects if name.endswith(f".{wanted}")]
    # A lone word in lower case is an argument's value or a package's name more often than an attribute.
    is_word = node["reftype"] == "obj" and target.islower() and target == node["reftarget"]
    if len(found) == 1 and not is_word:
        entry = objects[found[0]]
        address = f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
        return nodes.reference("", "", shown, internal=True, refuri=address)
    is_plain = node["reftype"] == "obj" or target.startswith(PLAIN) or short in SHORTHANDS
    return shown if is_plain else None


def setup(app: Sphinx) -> None:
    """Connect what is here to Sphinx."""
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", resolve)
