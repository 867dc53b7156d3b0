"""A skipped test proves nothing: under CI it fails the run, unless it needs the vectors beside the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = "import pytest\n\ndef test_nothing():\n    pytest.skip('not today')\n"
SHARED = "import pytest\n\n@pytest.mark.shared\ndef test_vectors(shared_dir):\n    assert shared_dir\n"
PASSED = "def test_something():\n    pass\n"


@pytest.mark.parametrize(
    ("text", "ci", "code"),
    [(SKIPPED, "true", 1), (SKIPPED, "", 0), (SHARED, "true", 0), (PASSED, "true", 0)],
    ids=["skipped under CI", "skipped at home", "vectors absent under CI", "passed under CI"],
)
def test_a_skip_fails_the_run_under_ci_only(tmp_path: Path, text: str, ci: str, code: int) -> None:
    folder = tmp_path / "checkout" / "tests"
    folder.mkdir(parents=True)
    for name in ("conftest.py", "postgresql.py"):
        shutil.copy(Path(__file__).parent / name, folder)
    (folder / "test_it.py").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == code, result.stdout + result.stderr


def test_what_shares_a_long_set_up_runs_in_one_worker(tmp_path: Path) -> None:
    folder = tmp_path / "checkout" / "tests"
    (folder / "demo").mkdir(parents=True)
    for name in ("conftest.py", "postgresql.py"):
        shutil.copy(Path(__file__).parent / name, folder)
    line = (
        "import os, time, pytest\n\n@pytest.mark.parametrize('n', range(4))\ndef test_{0}(n):\n    time.sleep(0.05)\n"
    )
    for name in ("first", "second"):
        (folder / "demo" / f"test_{name}.py").write_text(line.format(name))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    workers = {
        line.partition("]")[0] for line in result.stdout.splitlines() if line.startswith("[gw") and "PASSED" in line
    }
    assert len(workers) == 1, result.stdout + result.stderr
