"""The documents of the house, and what stands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.run import parse_args as parse_torchrun

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

    def moved(self, place: str, to: str) -> "Block":
        """The same with another folder."""
        return Block(self.language, self.text.replace(place, to))

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


def program_and_arguments(line: str) -> tuple[str, tuple[str, ...]]:
    """Of a command: what is started, such as "launch/imagenet.py" or "-m stores", and what it is given."""
    words = shlex.split(line, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if words[0] == "torchrun":
        told = parse_torchrun(words[1:])
        return f"{'-m ' if told.module else ''}{told.training_script}", tuple(told.training_script_args)
    if words[:2] == ["python", "-m"]:
        return f"-m {words[2]}", tuple(words[3:])
    first = 1 if words[0] in ("python", "sbatch") else 0
    return words[first], tuple(words[first + 1 :])
