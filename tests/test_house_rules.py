"""Rules of the house that no linter knows: sizes, purity by call, reasons behind every exception."""

import ast
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = sorted(path for room in ("federation", "consent", "clients") for path in (REPOSITORY / room).rglob("*.py"))
MODULE_LINES_MAX = 420  # "about 400"
FUNCTION_LINES_MAX = 70
# Names that say nothing about what a module is about.
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "tools"}


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_stay_short() -> None:
    long = {shown(path): lines for path in MODULES if (lines := path.read_text("utf-8").count("\n")) > MODULE_LINES_MAX}
    assert long == {}


def test_functions_stay_short() -> None:
    long = {
        f"{shown(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_modules_are_named_for_what_they_are_about() -> None:
    assert [shown(path) for path in MODULES if path.stem.strip("_") in EMPTY_NAMES] == []


def test_a_package_s_init_is_a_docstring_or_a_list_of_names() -> None:
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    wrong = [
        shown(path)
        for path in MODULES
        if path.name == "__init__.py"
        and not all(isinstance(node, allowed) for node in ast.parse(path.read_text()).body)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["federation/rules", "consent/rules"])
def test_rules_read_no_clock(package: str) -> None:
    """`now` is an argument; import-linter cannot see a call."""
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in (REPOSITORY / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today", "default_rng"}
    ]
    assert found == []


def test_every_lint_exception_carries_its_reason() -> None:
    bare = []
    for path in MODULES + sorted((REPOSITORY / "tests").rglob("*.py")) + sorted((REPOSITORY / "scripts").glob("*.py")):
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type != tokenize.COMMENT:
                    continue
                found = re.search(
                    r"(noqa(: ?[A-Z]+\d+(, ?[A-Z]+\d+)*)?|type: ignore(\[[^\]]*\])?|pragma: no cover)(.*)", token.string
                )
                if found and not re.search(r"\w{3,}", found.group(5)):
                    bare.append(f"{shown(path)}:{token.start[0]}")
    assert bare == []


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Tests are no package: of two files with one name pytest would collect only the first."""
    names = sorted(path.name for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, other in pairwise(names) if name == other] == []


def test_no_error_is_swallowed() -> None:
    swallowed = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or all(isinstance(line, ast.Pass) for line in node.body))
    ]
    assert swallowed == []


def test_nothing_from_the_wire_is_unpickled_or_executed() -> None:
    """No pickle, marshal, eval or exec anywhere in shipped code."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & {
                "pickle",
                "marshal",
                "shelve",
                "cloudpickle",
                "dill",
                "joblib",
            }:
                found.append(f"{shown(path)}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                found.append(f"{shown(path)}:{node.lineno}")
    assert found == []
