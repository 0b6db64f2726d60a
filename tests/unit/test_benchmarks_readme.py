"""The table of benchmarks names every program that there is, and no other."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_readme_lists_the_programs():
    programs = {
        path.stem
        for path in FOLDER.glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    rows = re.findall(
        r"^\| `(\w+)` \|.*`python -m benchmarks\.(\w+)` \|",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert rows and all(name == module for name, module in rows)
    assert {name for name, _ in rows} == programs
