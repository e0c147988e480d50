"""The shape of the package, held by reading its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paynexus_async
from paynexus_async import exceptions

PACKAGE = Path(paynexus_async.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}

# From the ground up: a module may import from its own line and from those above it here.
LAYERS = [
    {"_version", "exceptions"},
    {"status", "phone"},
    {"_discreet", "_log"},
    {"models"},
    {"_observer"},
    {"_convert"},
    {"_wire", "_schedule", "_hearsay"},
    {"_experience", "_prompts", "_quota", "_readers", "_tasks", "webhooks"},
    {"_agenda"},
    {"_budget"},
    {"_transport"},
    {"_retry"},
    {"_follow", "_bulk", "_pages"},
    {"_resolver"},
    {"client"},
    {"__init__"},
    {"telemetry", "_seal"},
    {"_checkout", "durable"},
    {"aiohttp", "fastapi"},
    {"sandbox"},
    {"cli"},
    {"__main__"},
]

ONE_HOME = {
    "tenacity": {"_retry"},
    "httpx": {"_transport", "cli", "sandbox"},
    "httpcore": set(),
    "aiohttp": {"_readers", "aiohttp"},
    "aiohttp_sse": {"aiohttp"},
    "pyreqwest": {"_readers"},
    "cattrs": {"_convert"},
    "phonenumbers": {"phone"},
    "cryptography": {"_checkout", "_seal", "durable"},
    "dbos": {"cli", "durable"},
    "sqlalchemy": {"cli", "durable"},
    "sqlite3": {"durable", "sandbox"},
    "fastapi": {"fastapi", "sandbox"},
    "starlette": {"fastapi", "sandbox"},
    "sse_starlette": {"fastapi"},
    "uvicorn": {"sandbox"},
    "pydantic": {"sandbox"},
    "cyclopts": {"cli"},
    "rich": {"cli"},
    "opentelemetry": {"telemetry"},
    "trio": {"_tasks", "sandbox"},
    "asyncio": {"_tasks", "cli", "durable", "sandbox"},
}

PURE = {
    "status",
    "phone",
    "_discreet",
    "_observer",
    "models",
    "_convert",
    "_wire",
    "_schedule",
    "_experience",
    "_quota",
    "_prompts",
    "_hearsay",
    "durable._orders",
    "sandbox._engine",
    "sandbox._state",
    "sandbox._webhooks",
    "sandbox._faults",
}
CLOCKS = {"time", "random", "secrets", "asyncio", "anyio", "trio", "socket", "threading"}


def room(module: str) -> str:
    return module.split(".")[0]


def level(module: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room(module) in rooms)


def imports(module: str) -> list[tuple[str, bool]]:
    """Each imported module, ours relative to the package, and whether only for type checkers."""
    found = []
    tree = MODULES[module]
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = module.split(".")[:-1]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                stem = [*base, *(node.module.split(".") if node.module else [])]
                ours = [".".join([*stem, a.name]) for a in node.names]
                names = [
                    "paynexus_async." + (o if o in MODULES or (room(o) in ROOMS and not stem) else ".".join(stem))
                    for o in ours
                ]  # fmt: skip
            else:
                names = [node.module or ""]
        found += [(name, id(node) in guarded) for name in names]
    return found


ROOMS = {room(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    """Each room imports from rooms below it only; names for type checkers are free."""
    for name, for_types in imports(module):
        if name.startswith("paynexus_async") and not for_types:
            target = name.removeprefix("paynexus_async").strip(".") or "__init__"
            assert level(target) <= level(module), f"{module} imports {target}"


@pytest.mark.parametrize("module", MODULES)
def test_each_dependency_has_one_home(module):
    """A foreign library is imported where it is wrapped, and nowhere else."""
    for name, for_types in imports(module):
        homes = ONE_HOME.get(name.split(".")[0])
        if homes is not None and not for_types:
            assert room(module) in homes, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_are_pure(module):
    """No clock, no randomness, no event loop, no `async`."""
    assert not [
        n for n in ast.walk(MODULES[module]) if isinstance(n, ast.AsyncFunctionDef | ast.Await)
    ]
    assert not {name.split(".")[0] for name, _ in imports(module)} & CLOCKS


def test_the_sandbox_does_not_know_the_client():
    """It must not agree with the client's mistakes."""
    known = {
        name.removeprefix("paynexus_async.").split(".")[0]
        for module in MODULES
        if room(module) == "sandbox"
        for name, _ in imports(module)
        if name.startswith("paynexus_async")
    }
    assert known <= {"sandbox", "status", "models", "phone", "exceptions", "_version"}


def test_every_room_has_its_place():
    """A new module is put into the picture on purpose."""
    assert {room(module) for module in MODULES} <= set().union(*LAYERS)


def test_importing_the_package_loads_no_extra():
    """Nor a web framework, nor trio; and what is slow, only when there is work for it."""
    code = "import sys, paynexus_async; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "paynexus_async" in loaded
    assert not set(loaded) & {
        "fastapi", "starlette", "uvicorn", "pydantic", "cyclopts", "trio", "pytest",
        "aiohttp", "pyreqwest", "rich", "httpx", "phonenumbers", "cryptography", "sse_starlette",
        "aiohttp_sse", "opentelemetry", "dbos", "sqlalchemy",
    }  # fmt: skip
    assert not [name for name in loaded if name.startswith("paynexus_async.cli")]


def test_what_is_exported_is_sorted_and_exists():
    """The public names, all of them, and each exception."""
    names = [n for n in paynexus_async.__all__ if n != "__version__"]
    assert sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n)) == names
    assert all(hasattr(paynexus_async, name) for name in paynexus_async.__all__)
    assert set(exceptions.__all__) <= set(paynexus_async.__all__)


def test_the_tree_of_exceptions_is_drawn_as_it_is():
    """Every class stands in the drawing, below its base."""
    drawing = (exceptions.__doc__ or "").splitlines()
    depth = {}
    for line in drawing:
        for word in line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()[:1]:
            if word in exceptions.__all__:
                depth[word] = line.index(word)
    assert set(depth) == set(exceptions.__all__)
    for name in exceptions.__all__:
        bases = [b.__name__ for b in getattr(exceptions, name).__bases__ if b.__name__ in depth]
        for base in bases:
            assert depth[name] > depth[base]


def test_public_signatures_hold_no_any():
    """What a user touches is typed."""
    for module in ("client", "models", "exceptions", "status", "phone"):
        assert not [
            node
            for node in ast.walk(MODULES[module])
            if isinstance(node, ast.Name) and node.id == "Any"
        ], module
