"""
The rules of structure that the package keeps, read from its source.

Each rule is a table and a loop; each exemption is an entry with its reason, and an entry that is no longer needed
is an error.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

import kling_async

PACKAGE = Path(kling_async.__file__).parent
ROOT = "kling_async"

# Imports point one way: a package may import what stands before it (design §4).
ORDER = (
    "errors",
    "protocol",
    "transport",
    "journal",
    "slots",
    "client",
    "batch",
    "scale",
    "emulator",
    "integrations",
    "report",
    "cli",
    "testing",
)
LEAVES = {
    "_version": "one constant, which every layer may name",
    "_disk": "files that survive a power cut, for journal, downloads and results",
    "_frames": "takes frames off errors, for whoever handles what is secret",
    "_crash": "named places for tests to kill the process at; nothing happens there otherwise",
}
FACE = {ROOT, f"{ROOT}.__main__"}  # names only, loaded when they are used

# (importer, imported): why it may point the other way. Such an import is late or for type checkers only.
AGAINST_THE_ORDER = {
    ("errors", "protocol.tasks"): "a name for type checkers: `TaskFailed` holds a task",
    ("client.kling", "batch.batch"): "`Kling.batch()` is where users look for it; loaded when it is called",
    ("client.kling", "batch.entries"): "the type of what `Kling.batch()` takes",
    (
        "client.kling",
        "batch.fetching",
    ): "`Kling.fetch()` is where users look for it; loaded when it is called",
    ("client.kling", "batch.options"): "what `Kling.fetch()` was told is checked as for a batch",
    (
        "client.kling",
        "batch.upkeep",
    ): "`Kling.recover()` is where users look for it; loaded when it is called",
}
# Only for type checkers, so that no cycle is ever loaded.
CYCLES_FOR_TYPES = {
    ("emulator.pages", "emulator.server"): "the pages show the emulator that serves them",
}

# What the pure core may import: whole modules, or single names of modules that can do more than compute.
PURE_MODULES = {
    "attrs",
    "attrs.validators",
    "base64",
    "binascii",
    "collections",
    "collections.abc",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "ipaddress",
    "itertools",
    "operator",
    "json",
    "math",
    "re",
    "statistics",
    "struct",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zlib",
}
PURE_NAMES = {
    "datetime": {"UTC", "datetime", "timedelta"},  # values; `now()` and its like are forbidden below
    "email.utils": {"parsedate_to_datetime"},  # the only reader of HTTP dates in the standard library
    "os": {"PathLike"},  # a type
    "pathlib": {"Path"},  # joins and names; what touches a disk is forbidden below
}
PURE_WHOLE = {
    ("protocol.auth", "jwt"): "signs with a key, reads no clock when it encodes",
    ("protocol.quick", "msgspec"): "reads JSON, as the standard library's module does",
    ("protocol.auth", "warnings"): "keeps back what the JWT library says about the vendor's secrets",
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"}
IMPURE_METHODS = {
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "touch", "mkdir", "unlink", "rmdir"),
    *("stat", "lstat", "exists", "is_file", "is_dir", "is_symlink", "is_mount", "samefile", "owner", "chmod"),
    *("iterdir", "glob", "rglob", "walk", "rename", "symlink_to", "hardlink_to", "readlink"),
    *("resolve", "absolute", "cwd", "home", "expanduser"),
    *("now", "utcnow", "today", "time", "monotonic", "perf_counter", "sleep", "getenv"),
}
PURE_IN_SPITE_OF_ITS_NAME = {
    ("protocol.slots", "open"): "a cool-down opens again; no file does",
}

# Where the HTTP library may be imported (R28). yarl comes with it.
HTTP = {"aiohttp", "yarl"}
HTTP_FOLDERS = {"transport", "emulator"}
HTTP_MODULES = {"integrations.aiohttp_web": "an application for those who serve with aiohttp"}
HTTP_FOR_TYPES = {
    ("client.assembly", "aiohttp"): "the type of the session that a caller may lend",
    ("client.kling", "aiohttp"): "the same",
}

# What the core installs, by the name it is imported under.
CORE = {"aiohttp": "aiohttp", "anyio": "anyio", "attrs": "attrs", "jwt": "pyjwt"}
WITH_CORE = {"yarl": "aiohttp needs it and takes its URLs"}
# Optional packages: the distribution, and the modules that may import it at their top, with the reason.
EXTRAS = {
    "click": ("click", {"cli": "the command line is made of it, and its entry point says how to install it"}),
    "rich": ("rich", {"cli.live": "loaded only when there is a terminal to draw on"}),
    "PIL": (
        "pillow",
        {
            "cli.canvas": "loaded when the demo draws its pictures",
            "cli.drawings": "loaded when the demo draws its pictures",
            "emulator.cutout": "loaded by the painter",
            "emulator.painter": "loaded for the first composite; the emulator checks for Pillow before",
            "emulator.scenery": "loaded by the painter",
        },
    ),
    "dotenv": ("python-dotenv", {}),
    "pillow_heif": ("pillow-heif", {}),
    "obstore": ("obstore", {}),
    "jinja2": ("jinja2", {}),
    "pybase64": ("pybase64", {}),
    "msgspec": ("msgspec", {"protocol.quick": "loaded for the first list page, if it is there"}),
    "uvloop": ("uvloop", {}),
    "redis": ("redis", {}),
    "distributed": (
        "distributed",
        {"scale.workers": "loaded by the engine when a run begins, and by the workers"},
    ),
    "opentelemetry": ("opentelemetry-api", {}),
    "prometheus_client": ("prometheus-client", {}),
    "pytest": ("pytest", {"testing.plugin": "only pytest loads it"}),
}

MOST_LINES = 400
MOST_POSITIONAL = 5


@frozen
class Import:
    """One imported module or name, and how: *late* inside a function, *typing* for type checkers only."""

    importer: str
    module: str
    name: str
    line: int
    late: bool
    typing: bool

    @property
    def top(self) -> str:
        """The outermost package imported."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.module} {self.name}".rstrip()


@frozen
class Module:
    """One file of the package; *name* is below `kling_async`, empty for the face."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The package, or the module, of the layout that this belongs to."""
        return self.name.partition(".")[0]

    @property
    def is_public(self) -> bool:
        """Whether no part of its name begins with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


@cache
def modules() -> dict[str, Module]:
    """Read the whole package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def named(*layers: str) -> Iterator[Module]:
    """Yield the modules of *layers*, all without any."""
    for module in modules().values():
        if not layers or module.layer in layers:
            yield module


@cache
def imports(name: str) -> tuple[Import, ...]:
    """List everything that one module imports."""
    return tuple(_imports(name, modules()[name].tree.body, late=False, typing=False))


def _imports(name: str, body: Iterable[ast.AST], *, late: bool, typing: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, "", node.lineno, late, typing)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield Import(name, node.module or "", alias.name, node.lineno, late, typing)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(name, node.body, late=late, typing=True)
            yield from _imports(name, node.orelse, late=late, typing=typing)
        else:
            inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(name, ast.iter_child_nodes(node), late=inside, typing=typing)


def ours(name: str) -> Iterator[tuple[Import, str]]:
    """Yield the imports of this package's own modules, each with the module that it leads to."""
    for each in imports(name):
        if each.top == ROOT:
            yield each, _home(each)


def _home(each: Import) -> str:
    base = each.module.removeprefix(ROOT).removeprefix(".")
    inner = f"{base}.{each.name}".removeprefix(".")
    if inner in modules():
        return inner
    if not base and each.name in kling_async._HOMES:
        return kling_async._HOMES[each.name]  # a name of the face is where it comes from
    return "_version" if (base, each.name) == ("", "__version__") else base


def third_party(name: str) -> Iterator[Import]:
    """Yield the imports of what is neither ours nor in the standard library."""
    for each in imports(name):
        if each.top not in {ROOT, "__future__"} and each.top not in sys.stdlib_module_names:
            yield each


def assert_none(faults: Iterable[object]) -> None:
    """Fail with the list of *faults*, if there are any."""
    found = [str(fault) for fault in faults]
    assert not found, "\n".join(found)


# (a) One way.


def test_every_module_has_its_place() -> None:
    """Whatever lies in the package is a layer of the order, a declared leaf or the face."""
    known = {*ORDER, *LEAVES, "", "__main__"}

    assert_none(f"{module.name} is no part of the layout" for module in named() if module.layer not in known)


def test_imports_point_one_way() -> None:
    """No module imports from a later layer, except as declared."""
    faults = []
    for module in named(*ORDER):
        for each, target in ours(module.name):
            layer = target.partition(".")[0]
            backwards = layer not in LEAVES and (
                layer not in ORDER or ORDER.index(layer) > ORDER.index(module.layer)
            )
            if backwards and not ((module.name, target) in AGAINST_THE_ORDER and (each.late or each.typing)):
                faults.append(each)

    assert_none(faults)


def test_leaves_import_nothing_of_ours() -> None:
    """A leaf may be imported from anywhere because it imports nothing itself."""
    assert_none(each for module in named(*LEAVES) for each, _ in ours(module.name))


def test_no_import_cycles() -> None:
    """Modules form no cycle, late imports included; only declared ones for type checkers may close one."""
    edges: dict[str, set[str]] = defaultdict(set)
    for module in named(*ORDER):
        for _, target in ours(module.name):
            edge = (module.name, target)
            if edge not in AGAINST_THE_ORDER and edge not in CYCLES_FOR_TYPES and target != module.name:
                edges[module.name].add(target)

    assert_none(" -> ".join(cycle) for cycle in _cycles(edges))


def _cycles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in done:
            for target in sorted(edges.get(name, ())):
                yield from visit(target, [*trail, name])
            done.add(name)

    for name in sorted(edges):
        yield from visit(name, [])


def test_the_exemptions_from_the_order_are_needed() -> None:
    """An import that no longer exists needs no exemption, and cycles for types are for type checkers only."""
    present = {(module.name, target) for module in named() for _, target in ours(module.name)}
    loaded = {
        (module.name, target) for module in named() for each, target in ours(module.name) if not each.typing
    }

    assert_none(sorted({*AGAINST_THE_ORDER, *CYCLES_FOR_TYPES} - present))
    assert_none(sorted(loaded & set(CYCLES_FOR_TYPES)))


# (b) Purity.


def test_the_core_imports_only_what_computes() -> None:
    """`protocol/` and `errors.py` import no clock, dice, disk, socket, loop or log, not even late."""
    faults = []
    for module in named("errors", "protocol"):
        for each in imports(module.name):
            allowed = (
                each.top in {ROOT, "__future__"}
                or each.module in PURE_MODULES
                or each.name in PURE_NAMES.get(each.module, ())
                or (module.name, each.module) in PURE_WHOLE
            )
            if not allowed:
                faults.append(each)

    assert_none(faults)


def test_the_core_calls_nothing_that_touches_the_world() -> None:
    """No file is opened, no path looked at, no clock read, nothing printed."""
    faults = []
    for module in named("errors", "protocol"):
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name) and called.id in IMPURE_CALLS:
                faults.append(f"{module.name}:{node.lineno} calls {called.id}()")
            if (
                isinstance(called, ast.Attribute)
                and called.attr in IMPURE_METHODS
                and (module.name, called.attr) not in PURE_IN_SPITE_OF_ITS_NAME
            ):
                faults.append(f"{module.name}:{node.lineno} calls .{called.attr}()")

    assert_none(faults)


def test_the_allowances_of_the_core_are_needed() -> None:
    """What no pure module imports or calls needs no allowance."""
    found = [each for module in named("errors", "protocol") for each in imports(module.name)]
    attributes = {
        (module.name, node.attr)
        for module in named("errors", "protocol")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
    }

    assert_none(sorted(PURE_MODULES - {each.module for each in found}))
    assert_none(
        sorted(
            {(module, name) for module, names in PURE_NAMES.items() for name in names}
            - {(each.module, each.name) for each in found}
        )
    )
    assert_none(sorted(set(PURE_WHOLE) - {(each.importer, each.module) for each in found}))
    assert_none(sorted(set(PURE_IN_SPITE_OF_ITS_NAME) - attributes))


# (c) and (e) What is imported from elsewhere.


def test_there_is_one_http_seam() -> None:
    """aiohttp is imported in `transport/`, in the emulator's server and for those who serve with it only (R28)."""
    assert_none(
        each
        for module in named()
        if module.layer not in HTTP_FOLDERS and module.name not in HTTP_MODULES
        for each in third_party(module.name)
        if each.top in HTTP and not (each.typing and (module.name, each.top) in HTTP_FOR_TYPES)
    )


def test_the_core_needs_five_packages() -> None:
    """What is imported is one of the core's five, comes with them, or is a known extra."""
    known = {*CORE, *WITH_CORE, *EXTRAS}

    assert_none(each for module in named() for each in third_party(module.name) if each.top not in known)


def test_extras_are_imported_where_they_are_used() -> None:
    """An optional package is imported inside functions, or at the top of a module that is itself loaded late."""
    faults = []
    for module in named():
        for each in third_party(module.name):
            if each.top in EXTRAS and not each.late and not each.typing:
                _, places = EXTRAS[each.top]
                if not any(module.name == place or module.name.startswith(f"{place}.") for place in places):
                    faults.append(each)

    assert_none(faults)


def test_what_imports_an_extra_at_its_top_is_loaded_late() -> None:
    """Nothing outside the command line and its own folder loads such a module at its top."""
    eager = {
        place
        for _, places in EXTRAS.values()
        for place in places
        if "." in place and place.partition(".")[0] != "cli"
    }
    faults = [
        each
        for module in named()
        if module.name not in eager
        for each, target in ours(module.name)
        if target in eager and not each.late and not each.typing
    ]

    assert_none(faults)


def test_the_tables_agree_with_pyproject() -> None:
    """The core depends on exactly the five packages, and every extra is declared as one."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    optional = {
        _distribution(entry) for entries in project["optional-dependencies"].values() for entry in entries
    }

    assert {_distribution(entry) for entry in project["dependencies"]} == set(CORE.values())
    assert {distribution for distribution, _ in EXTRAS.values()} - {"pytest"} == optional


def _distribution(requirement: str) -> str:
    return requirement.partition(">=")[0].partition("[")[0].strip().lower()


# (d) Size.


def test_no_module_is_too_long() -> None:
    """No module has more than 400 lines."""
    lengths = {module.name: len(module.path.read_text(encoding="utf-8").splitlines()) for module in named()}

    assert_none(f"{name} has {length} lines" for name, length in lengths.items() if length > MOST_LINES)


def test_no_function_takes_many_positional_arguments() -> None:
    """At most five arguments are positional, *self* and *cls* apart; options are keyword-only."""
    faults = []
    for module in named():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
                count = len(names) - (names[:1] in (["self"], ["cls"]))
                if count > MOST_POSITIONAL:
                    faults.append(f"{module.name}.{node.name} takes {count} positional arguments")

    assert_none(faults)


# (f) What importing costs.


def loaded_by(statement: str) -> set[str]:
    """Run *statement* in a new interpreter and return the names of all modules loaded by it."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*sys.modules.keys() - before)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, env=environment
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    """`import kling_async` loads its face and its version, nothing of others, and no event loop (R29)."""
    found = loaded_by("import kling_async")

    assert {name for name in found if name.startswith(ROOT)} == {ROOT, f"{ROOT}._version"}
    assert not found & {"asyncio", "logging", "ssl", "socket", "json", "inspect"}
    assert not {name.partition(".")[0] for name in found} & {*CORE, *WITH_CORE, *EXTRAS, "attr"}


def test_the_client_loads_no_extra() -> None:
    """`from kling_async import Kling` loads what a client needs: no extra, no emulator, no command line, no JWT."""
    found = loaded_by("from kling_async import Kling")
    layers = {name.split(".")[1] for name in found if name.startswith(f"{ROOT}.")}

    assert not {name.partition(".")[0] for name in found} & {*EXTRAS, "jwt"}
    assert not layers & {"emulator", "integrations", "report", "cli", "testing"}
    assert f"{ROOT}.client.kling" in found


def test_values_load_no_http() -> None:
    """Jobs and errors can be used without any HTTP library or event loop, in a worker that only checks rows."""
    found = loaded_by("from kling_async import MultiImage, KlingError")

    assert not {name.partition(".")[0] for name in found} & {"aiohttp", "anyio", "asyncio", "sqlite3", "ssl"}


# (g) Names and words.


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    """A module has a docstring; a public one that defines something has `__all__`, whose names exist."""
    module = modules()[name]
    names = _declared(module.tree)
    defined = [
        node
        for node in module.tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert ast.get_docstring(module.tree)
    if names is None:
        assert not module.is_public or not defined
        return
    assert len(set(names)) == len(names)
    assert_none(f"{each} is not defined" for each in names if each not in _bound(module.tree))


def _declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return None


def _bound(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def test_everything_public_has_a_docstring() -> None:
    """Classes, functions and methods without a leading underscore say what they promise."""
    assert_none(
        f"{module.name}: {name} has no docstring"
        for module in named()
        for name, node in _public(module.tree.body)
        if not ast.get_docstring(node)
    )


_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, _Documented]]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
        # The signatures of one function, and the second half of a property, are described by the first.
        if node.name.startswith("_") or decorators & {"overload", "setter"}:
            continue
        yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from _public(node.body, f"{node.name}.")
