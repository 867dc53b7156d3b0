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
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
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
