"""Check every relative link of the project's Markdown: the file is there, and so is the heading behind ``#``."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """The README, the changelog and everything under docs."""
    return [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def anchor(heading: str) -> str:
    """A heading's anchor as Git hosts build it: lower case, blanks to hyphens, other signs dropped."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def broken(page: Path) -> Iterator[str]:
    """One line for each link of ``page`` that leads nowhere."""
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            yield f"{page.relative_to(ROOT)}: {target} does not exist"
        elif heading and path.suffix == ".md":
            anchors = {anchor(text) for text in HEADING.findall(path.read_text(encoding="utf-8"))}
            if heading not in anchors:
                yield f"{page.relative_to(ROOT)}: {target} has no such heading"


def main() -> int:
    """Print what is broken; the exit code is 1 when something is."""
    problems = [line for page in pages() for line in broken(page)]
    print("\n".join(problems) or f"every link of {len(pages())} pages leads somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
