"""`SECURITY.md` names the tests that show its claims: each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "SECURITY.md").read_text("utf-8")
NAMED = re.findall(r"`([\w/]+)::(test_\w+)`", TEXT)


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_a_claim_is_shown_by_a_test_that_exists(module, name):
    """A test that is renamed takes its claim with it."""
    tree = ast.parse((TESTS / f"{module}.py").read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_there_are_claims():
    """Of which none is forgotten by a mistake in the pattern."""
    assert len(NAMED) == TEXT.count("::test_") > 15
