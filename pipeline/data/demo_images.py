"""A small JPEG data set to try everything on: ten classes of textures and shapes, drawn from keys.

Classes come in families that resemble each other (bars, grids, blobs), and every image has its own size, colours,
scale, rotation, light, clutter, blur, noise and JPEG quality. A faint second pattern lies over each image, so that a
teacher has something to say about the wrong classes.
"""

import json
import math
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.core.cpu import map_spawned
from pipeline.core.errors import DataError
from pipeline.core.rng import Stream, check_seed, derive_seed

MARKER = "demo.json"
_VERSION = 1
_IMAGES_PER_TASK = 50
_SIDES_PX = (96, 257)
_ONE_PROCESS = 200  # fewer images are drawn here and now: starting processes would take longer

Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class DemoSpec:
    """What the data set is a function of."""

    train_per_class: int = 300
    val_per_class: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        for name in ("train_per_class", "val_per_class"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, got {getattr(self, name)}")


def write_demo(out: Path, spec: DemoSpec, on_progress: Callable[[int, int], None] | None = None) -> bool:
    """Draw the data set into `out/train/<class>/` and `out/val/<class>/`; `out` appears complete or not at all.

    Returns:
        False where `out` holds this very data set already.

    Raises:
        DataError: `out` holds something else.
    """
    if out.exists():
        _check_same(out, spec)
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _draw_all(temporary, spec, on_progress)
        (temporary / MARKER).write_text(json.dumps(_description(spec)), encoding="utf-8")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def draw_image(name: str, split: int, number: int, seed: int) -> tuple[Image.Image, int]:
    """Image `number` of class `name` in split 0 (train) or 1 (val), and its JPEG quality, as a pure function."""
    rng = np.random.default_rng(derive_seed(seed, Stream.SYNTHETIC, split, CLASSES.index(name), number))
    width, height = (int(side) for side in rng.integers(*_SIDES_PX, 2))
    shape = _pattern(name, width, height, rng)
    other = CLASSES[int(rng.integers(len(CLASSES)))]
    faint = _pattern(other, width, height, rng) * rng.uniform(0.0, 0.25)
    light, dark = _colours(rng)
    field = np.clip(shape * (1 - faint) + (1 - shape) * faint, 0, 1)[..., None]
    image = Image.fromarray(_to_bytes((dark + (light - dark) * field) * _light(width, height, rng)))
    _add_clutter(image, rng)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.6)))
    noise = rng.uniform(0.0, 14.0) * rng.standard_normal((height, width, 1), np.float32)
    pixels = np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), int(rng.integers(45, 96))


def _draw_all(root: Path, spec: DemoSpec, on_progress: Callable[[int, int], None] | None) -> None:
    counts = {"train": spec.train_per_class, "val": spec.val_per_class}
    tasks = [
        (split, name, range(first, min(first + _IMAGES_PER_TASK, count)))
        for split, count in counts.items()
        for name in CLASSES
        for first in range(0, count, _IMAGES_PER_TASK)
    ]
    total, done = len(CLASSES) * sum(counts.values()), 0
    for num_drawn in map_spawned(partial(_draw_task, root, spec.seed), tasks, here=total <= _ONE_PROCESS):
        done += num_drawn
        if on_progress is not None:
            on_progress(done, total)


def _draw_task(root: Path, seed: int, task: tuple[str, str, range]) -> int:
    split, name, numbers = task
    folder = root / split / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image, quality = draw_image(name, int(split == "val"), number, seed)
        image.save(folder / f"{number:05d}.jpg", quality=quality)
    return len(numbers)


def _description(spec: DemoSpec) -> dict[str, object]:
    return {"kind": "reflux demo images", "version": _VERSION, **asdict(spec)}


def _check_same(out: Path, spec: DemoSpec) -> None:
    wanted = _description(spec)
    try:
        found = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = f"no {MARKER}"
    if found != wanted:
        raise DataError(
            f"{out} exists and holds something else than the demo images asked for; name another --out.\n"
            f"  there:  {found}\n  wanted: {wanted}"
        )


def _pattern(name: str, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) float32 in [0, 1]: class `name` at a random scale, rotation, position and slight bend."""
    period = rng.uniform(0.2, 0.42) * min(width, height)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[0:height, 0:width]
    y, x = y.astype(np.float32), x.astype(np.float32)
    bend = rng.uniform(0.0, 0.12) * period
    x = x + bend * np.sin(y * (rng.uniform(1.0, 4.0) / period) + rng.uniform(0, 6))
    cosine, sine = math.cos(angle) / period, math.sin(angle) / period
    stretch = rng.uniform(0.8, 1.25)
    u = cosine * x + sine * y + rng.uniform(0, 64)
    v = stretch * cosine * y - stretch * sine * x + rng.uniform(0, 64)
    sharpness = period / 2.0
    return np.clip(_PATTERNS[name](u, v, rng) * sharpness + 0.5, 0, 1).astype(np.float32)


def _bars(position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.25 * np.sin(2 * np.pi * position) + rng.uniform(-0.09, 0.09)


def _stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _bars(u, rng)


def _waves(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _bars(u + rng.uniform(0.22, 0.45) * np.sin(2 * np.pi * v * rng.uniform(0.35, 0.8)), rng)


def _zigzag(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    triangle = np.abs((v * rng.uniform(0.35, 0.8)) % 1 - 0.5) * 4 - 1
    return _bars(u + rng.uniform(0.28, 0.6) * triangle, rng)


def _checker(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.5 * np.sin(np.pi * u) * np.sin(np.pi * v)


def _bricks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shifted = u * rng.uniform(0.5, 0.8) + 0.5 * (np.floor(v) % 2)
    inside = np.minimum(0.5 - np.abs(shifted % 1 - 0.5), 0.5 - np.abs(v % 1 - 0.5))
    return inside - rng.uniform(0.08, 0.17)


def _dots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    du, dv, size, _ = _cells(u, v, rng)
    return size - np.hypot(du, dv)


def _rings(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    du, dv, size, _ = _cells(u, v, rng)
    return rng.uniform(0.06, 0.1) - np.abs(np.hypot(du, dv) - size * 0.85)


def _polygons(sides: int) -> Pattern:
    def field(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        du, dv, size, turn = _cells(u, v, rng)
        sector = 2 * np.pi / sides
        within = (np.arctan2(dv, du) + turn) % sector - sector / 2
        return size * np.sqrt(np.cos(sector / 2)) - np.hypot(du, dv) * np.cos(within)

    return field


def _cells(
    u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A grid of cells, each with its own jitter: offsets (du, dv) from the cell's centre, its size and its turn."""
    column, row = np.floor(u), np.floor(v)
    cell = (row.astype(np.int32) & 63) * 64 + (column.astype(np.int32) & 63)
    jitter = [(2 * rng.random(64 * 64, np.float32) - 1).take(cell) for _ in range(4)]
    du, dv = u - column - 0.5 + 0.1 * jitter[0], v - row - 0.5 + 0.1 * jitter[1]
    return du, dv, 0.33 + 0.06 * jitter[2], np.pi * jitter[3]


_PATTERNS: dict[str, Pattern] = {
    "bricks": _bricks,
    "checker": _checker,
    "dots": _dots,
    "pentagons": _polygons(5),
    "rings": _rings,
    "squares": _polygons(4),
    "stripes": _stripes,
    "triangles": _polygons(3),
    "waves": _waves,
    "zigzag": _zigzag,
}
CLASSES = tuple(_PATTERNS)


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two random colours (3,) that differ by at least 80 levels in brightness; which is the brighter is random too."""
    while True:
        first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if abs(float(first.mean() - second.mean())) >= 80:
            return first, second


def _light(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 1) factors: a slope across the image."""
    slope_x, slope_y = rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    factors: np.ndarray = (1 + slope_x * x[None, :] + slope_y * y[:, None])[..., None]
    return factors


def _add_clutter(image: Image.Image, rng: np.random.Generator) -> None:
    """Up to four bars, discs and boxes over the picture."""
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        side = rng.uniform(0.05, 0.3) * min(image.size)
        kind = int(rng.integers(3))
        if kind == 0:
            draw.line(
                (x, y, rng.uniform(0, image.width), rng.uniform(0, image.height)), colour, int(rng.integers(1, 7))
            )
        elif kind == 1:
            draw.ellipse((x - side / 2, y - side / 2, x + side / 2, y + side / 2), colour)
        else:
            draw.rectangle((x, y, x + side, y + side * rng.uniform(0.3, 1.5)), colour)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)
