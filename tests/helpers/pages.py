"""The pages of the documentation: their links, code blocks and commands."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
)
FENCED = re.compile(r"^```.*?^```", re.S | re.M)
COMMAND = re.compile(r"(?<![\w.-])(?:python -m (?:easyedit_neuron|benchmarks)|easyedit-neuron (?!\[)).*")


def name_of(page: Path) -> str:
    """The path below the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def links(text: str) -> list[str]:
    """Targets of links and pictures, outside of code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", FENCED.sub("", text)))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them; no page has a heading twice."""
    headings = re.findall(r"^#{1,6} (.*)$", FENCED.sub("", text), re.M)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(slugs)) == len(slugs), slugs
    return set(slugs)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(text: str) -> list[list[str]]:
    """The words of this package's commands in bash blocks, with variables put in, and in code spans."""
    lines = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    for block in blocks(text, "bash"):
        block = re.sub(r"<<'END'\n.*?^END$", "", block.replace("\\\n", " "), flags=re.S | re.M)
        assignment = re.compile(r'^(\w+)="([^"]*)"\n', re.M)
        variables, block = assignment.findall(block), assignment.sub("", block)
        for name, value in variables:
            block = re.sub(rf"\${name}\b", lambda _, value=value: " ".join(value.split()), block)
        lines += re.split(r"\n|; ", block)
    matches = [COMMAND.search(line) for line in lines]
    return [shlex.split(match.group(), comments=True) for match in matches if match]
