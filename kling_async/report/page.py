"""
A run's data as one HTML page: jinja2, everything escaped, nothing loaded from anywhere.

Pure, but for the files of the template. Style and script are files of this package that stand in the page as they are;
its policy (CSP) names them by their hashes, so that a browser runs no others, and lets nothing leave the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_async.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from jinja2 import BaseLoader, Environment

__all__ = ["as_script", "digest", "render", "require_jinja"]

_ASSETS = "assets"
_OURS = "gallery.html"
# In the order in which they stand in the page.
_SCRIPTS = ("data", "select", "copy", "cards", "list", "viewer", "keys", "main")
# What ends a script's text, or a line in older JavaScript.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPES = str.maketrans(_UNSAFE)


def require_jinja() -> None:
    """Raise MissingExtra unless jinja2 is installed."""
    try:
        import jinja2  # noqa: F401  # only whether it is there
    except ModuleNotFoundError:
        raise MissingExtra(
            'gallery: expected jinja2, found no such module; install it: pip install "kling-async[cli]"',
            "cli",
        ) from None


def as_script(value: object) -> str:
    """Return *value* as JSON that can stand inside a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def digest(text: str) -> str:
    """Return what a policy calls the style or script *text*."""
    content = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(content).decode()}'"


def render(data: Mapping[str, Any], *, timeline: str = "", template: Path | None = None) -> str:
    """
    Return the page for *data*, made with our template or the one in the file *template*.

    *timeline* is an SVG element, or nothing. Raises `MissingExtra` without jinja2, and `ConfigError` naming file and line
    of a template that cannot be read or used.
    """
    require_jinja()
    from jinja2 import TemplateError, TemplateNotFound
    from jinja2.filters import do_mark_safe

    environment = _environment(template)
    try:
        page = environment.get_template(f"kling/{_OURS}" if template is None else template.name)
        return page.render(
            run=data["run"],
            totals=data["totals"],
            rows=data["rows"],
            pictures=data["pictures"],
            references=data["references"],
            data=do_mark_safe(as_script(data)),  # escaped for where it stands
            timeline=do_mark_safe(timeline),  # made by us of escaped texts
            style=do_mark_safe(_asset("gallery.css")),  # a file of this package
            script=do_mark_safe(_script()),  # files of this package
        )
    except TemplateNotFound as error:
        raise _refuse(template, f"no file {error.message}") from error
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise _refuse(template, f"{error.message}{f' in line {line}' if line else ''}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _refuse(template, str(error)) from error


def _refuse(template: Path | None, found: str) -> ConfigError:
    return ConfigError(
        f"--template: expected a jinja2 template that can be used, found {template}: {found}; see docs/gallery.md"
    )


def _environment(template: Path | None) -> Environment:
    from jinja2 import Environment, FileSystemLoader, FunctionLoader, PrefixLoader, StrictUndefined
    from jinja2.loaders import ChoiceLoader

    loaders: list[BaseLoader] = [PrefixLoader({"kling": FunctionLoader(_asset)})]
    if template is not None:
        loaders.append(FileSystemLoader(template.parent))
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"digest": digest, "duration": duration, "number": number}
    return environment


def duration(seconds: float | None) -> str:
    """Return *seconds* as people read them: `4.2 s`, `2 min 10 s`, `3 h 5 min`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def number(value: float) -> str:
    """Return *value* with separators, without decimals that say nothing."""
    return f"{value:,.10g}" if value < 1e9 else f"{value:,.0f}"


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(_ASSETS, name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'
