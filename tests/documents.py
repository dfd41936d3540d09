"""The documents of the house, and what stands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
README = HOUSE / "README.md"
TOUR = HOUSE / "docs" / "tour.md"
PAGES = sorted((HOUSE / "docs").glob("*.md"))
DOCUMENTS = [README, *PAGES, HOUSE / "stores" / "README.md", HOUSE / "tests" / "null_device" / "README.md"]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the word after its fence, and what stands in it."""

    language: str
    text: str

    def commands(self) -> list[str]:
        """Of a shell block, continued lines joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks_of(document: Path) -> list[Block]:
    """In the document's order."""
    return [Block(*found) for found in _FENCE.findall(document.read_text(encoding="utf-8"))]


def prose_of(document: Path) -> str:
    """A document without its blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def commands_of(document: Path) -> list[str]:
    """Those of all shell blocks."""
    return [line for block in blocks_of(document) if block.language == "sh" for line in block.commands()]
