"""The project's sessions; requirements and versions come from pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
from itertools import chain
from pathlib import Path

import nox
from packaging.requirements import Requirement

PROJECT = nox.project.load_toml("pyproject.toml")
# Without the checkout on its path, Python finds the installed package or none.
INSTALLED = {"PYTHONSAFEPATH": "1"}
HERE = Path(__file__).parent
# Thrice the usual two cores: many tests wait for real sockets.
PYTEST = ("pytest", "--numprocesses=6", "--dist=worksteal")
# What waits for real time limits or computes for long, and need not do so on every Python.
PROVING = (
    "tests/faults",
    "tests/durability",
    "tests/simulation",
    "tests/slots",
)
# What the lowest versions of the requirements can break.
TOUCHING = (
    # The emulator and the pages of runs are used by most of these.
    *("tests/batch", "tests/cli", "tests/client", "tests/integrations", "tests/transport"),
    *(f"tests/protocol/test_{name}.py" for name in ("auth", "codec", "jobs", "pages", "tasks")),
)
# Its examples use extras, so its code runs in the session of the tests only.
WITH_EXTRAS = "tests/test_docs.py::test_code_runs[docs/observing.md]"


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def runs(version: str) -> bool:
    """Tell whether a Python of *version* starts; pyenv leaves commands on the path that only complain."""
    command = shutil.which(f"python{version}")
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([command or "", "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.stdout.strip() == version


def floors() -> list[str]:
    """Return every requirement of the package and its extras, at the lowest version that it allows."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    lowest = set()
    for text in chain(PROJECT["project"]["dependencies"], *extras):
        requirement = Requirement(text)
        (floor,) = requirement.specifier
        lowest.add(f"{requirement.name}=={floor.version}")
    return sorted(lowest)


# What is missing on this machine is left out; with none at all, the Python that runs nox does it, if pip finds it new enough.
PYTHONS = [version for version in nox.project.python_versions(PROJECT) if runs(version)] or None
LOWEST = PYTHONS[0] if PYTHONS else None
NEWEST = PYTHONS[-1] if PYTHONS else None
# The oldest is tried with the oldest requirements (`minimums`); those between see the tests before a release.
OTHERS = PYTHONS[:-1] if PYTHONS else []


@nox.session(python=NEWEST)
def tests(session: nox.Session) -> None:
    """Test the installed package on the newest Python there is."""
    _test(session)


@nox.session(python=OTHERS, default=False)
def others(session: nox.Session) -> None:
    """Test it on the other Pythons."""
    _test(session)


def _test(session: nox.Session) -> None:
    session.install(".[cli,cloud,heic,images,otel,prometheus]", *group("test"))
    session.run(*PYTEST, *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def proofs(session: nox.Session) -> None:
    """Prove the promises: broken networks, crashes at every step of a run, scheduling in virtual time."""
    session.install(".[cli,cloud,dask,heic,images]", *group("test", "stores"))
    session.run(*PYTEST, *PROVING, *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST, default=False)
def redis(session: nox.Session) -> None:
    """Share slots on this machine's redis-server instead of the Valkey that the tests bring along; X1, X2, X5 in short."""
    session.install(".[images,dask]", *group("arq"))
    named = INSTALLED | {"KLING_TEST_REDIS_SERVER": "redis-server"}
    places = ("tests/slots", "tests/scale/test_cluster.py", "tests/recipes/test_arq.py")
    session.run(*PYTEST, *places, "-k", "not memory and not sqlite", *session.posargs, env=named)


@nox.session(python=LOWEST)
def lint(session: nox.Session) -> None:
    """Check style and types, and the workflows as far as can be seen without running them."""
    session.install(".[cli,cloud,dask,heic,images,otel,prometheus]", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", *session.posargs)
    workflows = map(str, Path(".github", "workflows").iterdir())
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", *workflows)
    session.run("check-jsonschema", "--builtin-schema=vendor.dependabot", ".github/dependabot.yml")
    session.run("shellcheck", ".ci/run")


@nox.session(python=LOWEST)
def coverage(session: nox.Session) -> None:
    """Demand that the tests take every branch of the pure core."""
    session.install(".[cli,images]", *group("coverage"))
    session.run(
        *PYTEST,
        "--cov=kling_async.protocol",
        "tests/protocol",
        "tests/test_errors.py",
        *session.posargs,
        env=INSTALLED,
    )


@nox.session(python=LOWEST)
def minimums(session: nox.Session) -> None:
    """Test with the lowest versions that the requirements allow."""
    constraints = Path(session.create_tmp()) / "floors.txt"
    constraints.write_text("\n".join(floors()), encoding="utf-8")
    extras = ",".join(PROJECT["project"]["optional-dependencies"])
    session.install("--constraint", str(constraints), f".[{extras}]", *group("test"))
    session.run(*PYTEST, *TOUCHING, *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def examples(session: nox.Session) -> None:
    """Run the examples and the code of the documentation with the core alone, without any extra."""
    session.install(".", *group("test"))
    files = ("tests/test_examples.py", "tests/test_docs.py", "--deselect", WITH_EXTRAS)
    session.run(*PYTEST, *files, *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def web(session: nox.Session) -> None:
    """Serve what is mounted, the shops and the programs of the documentation with their web frameworks, and drive them."""
    session.install(".[cli,images]", *group("web"))
    session.run(*PYTEST, "tests/web", *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def browser(session: nox.Session) -> None:
    """Look at pages with a real browser; needs Debian's chromium and chromium-driver."""
    session.install(".[cli,images]", *group("browser"))
    session.run(*PYTEST, "tests/browser", *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def notebook(session: nox.Session) -> None:
    """Execute the notebook among the examples, and a command in a cell, in a kernel without a browser."""
    session.install(".[cli]", *group("notebook"))
    session.run("pytest", "tests/notebook", *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def build(session: nox.Session) -> None:
    """Build the distributions into dist/ and check what they say of themselves."""
    session.install(*group("build"))
    shutil.rmtree(HERE / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--installer=pip")
    session.run("twine", "check", "--strict", *map(str, (HERE / "dist").iterdir()))
    session.run("python", "tests/descriptions.py")


@nox.session(python=LOWEST, requires=["build"])
def wheel(session: nox.Session) -> None:
    """Use the wheel as it would be downloaded: alone first, then with its command line."""
    (built,) = (HERE / "dist").glob("*.whl")
    _alone(session, built)


@nox.session(python=PYTHONS, requires=["build"], default=False)
@nox.parametrize("kind", ["whl", "tar.gz"], ids=["wheel", "sdist"])
def installed(session: nox.Session, kind: str) -> None:
    """Do the same with both distributions on every Python there is, and run the demo; before a release."""
    (built,) = (HERE / "dist").glob(f"*.{kind}")
    _alone(session, built)
    folder = Path(session.create_tmp()) / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("kling-async", "demo", str(folder), "--progress", "none", env=INSTALLED)


def _alone(session: nox.Session, built: Path) -> None:
    every_name = (
        "import kling_async as k; print(k.__version__, len([getattr(k, name) for name in k.__all__]))"
    )
    session.install(str(built))
    session.run("python", "-c", every_name, env=INSTALLED)
    session.run("python", "tests/missing_extras.py", env=INSTALLED)
    # Its help needs nothing; all else says what to install.
    session.run("kling-async", "--help", silent=True)
    session.run("kling-async", "demo", success_codes=[3])
    session.install(f"{built}[cli]")
    session.run("kling-async", "--help", silent=True)
    session.run("python", "-m", "kling_async", "--help", env=INSTALLED, silent=True)


@nox.session(python=LOWEST, default=False)
def bench(session: nox.Session) -> None:
    """Measure speed beside baselines and write the table of docs/performance.md."""
    session.install(".[cli,images,speed]", *group("bench"))
    # From the checkout, whose simulator and server it uses.
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})


@nox.session(python=LOWEST, default=False)
def soak(session: nox.Session) -> None:
    """Hold a run of 5,000 jobs on 1,000 slots against the service's books; about a minute."""
    session.install(".")
    session.run("python", "benchmarks/soak.py", *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST)
def docs(session: nox.Session) -> None:
    """Build the site of docs/ into build/site; a warning, such as a link that leads nowhere, is an error."""
    session.install(".", *group("docs"))
    options = ("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")
    session.run("sphinx-build", *options, *session.posargs, "docs", "build/site", env=INSTALLED)


@nox.session(python=LOWEST, default=False)
def tables(session: nox.Session) -> None:
    """Write those parts of docs/ anew that come from the program: the tables and the picture."""
    session.install(".[cli]")
    session.run("python", "docs/tables.py", *session.posargs, env=INSTALLED)
    session.run("python", "docs/live_view.py", env=INSTALLED)


@nox.session(python=LOWEST, default=False)
def kills(session: nox.Session) -> None:
    """Kill 200 runs at random moments, cut the power at every step of one, continue one of a million rows."""
    session.install(".[cli,cloud,heic,images]", *group("test"))
    many = INSTALLED | {"KLING_TEST_KILLS": "200", "KLING_TEST_CUTS": "all", "KLING_TEST_ROWS": "1000000"}
    files = ("test_random_kills.py", "test_power_cuts.py", "test_many_rows.py")
    session.run(*PYTEST, *(f"tests/durability/{name}" for name in files), *session.posargs, env=many)


@nox.session(python=LOWEST, default=False)
def scale(session: nox.Session) -> None:
    """Prove X1 to X12 on clusters of processes: drivers, schedulers, workers and stores that die; six minutes."""
    session.install(".[cli,images,dask]", *group("test"))
    many = INSTALLED | {"KLING_TEST_SCALE": "1000", "KLING_TEST_RULES": "500"}
    places = ("tests/scale", "tests/slots/test_same_rules.py", "tests/simulation")
    session.run("pytest", "--numprocesses=2", "--dist=worksteal", *places, *session.posargs, env=many)


@nox.session(python=LOWEST, default=False)
@nox.parametrize("queue", ["arq", "celery"])
def recipes(session: nox.Session, queue: str) -> None:
    """Run the workers of examples/scale on queues."""
    session.install(".[images,redis]", *group(queue))
    session.run("pytest", f"tests/recipes/test_{queue}.py", *session.posargs, env=INSTALLED)


@nox.session(python=LOWEST, default=False)
def model(session: nox.Session) -> None:
    """Try 10,000 sequences of crashes, faults and lost journals against the model of the promise."""
    session.install(".[cli,cloud,heic,images]", *group("test"))
    many = INSTALLED | {"KLING_TEST_MODEL": "10000"}
    session.run(*PYTEST, "tests/durability/test_model.py", *session.posargs, env=many)


@nox.session(python=LOWEST, default=False)
def cancellations(session: nox.Session) -> None:
    """Cut whole programs at every pass of their event loop."""
    session.install(".[cli,images]", *group("test"))
    every = INSTALLED | {"KLING_TEST_CUT_STRIDE": "1"}
    options = ("--timeout=3600", "tests/faults/test_cancellation.py")
    session.run(*PYTEST, *options, *session.posargs, env=every)


@nox.session(python=LOWEST, default=False)
def mutations(session: nox.Session) -> None:
    """Switch each protection off in a copy of the package, and demand that the tests notice."""
    session.install(".[cli,cloud,heic,images]", *group("test"))
    session.run("python", "tests/durability/mutations.py", *session.posargs)
