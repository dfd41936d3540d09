"""Do .beton files hold what the reference sees, say what they are, and refuse what they are not?"""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import write_photo
from PIL import Image

from pipeline.core.errors import BadImageError, ConfigError, DataError
from pipeline.data import beton as format_of
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.backends import ffcv as backend
from pipeline.data.backends.torchvision import read_rgb
from pipeline.data.beton import HEADER, JPEG, RAW, Beton, availability, ffcv_module, open_beton, read_beton_index
from pipeline.data.beton_writer import copy_size, write_beton
from pipeline.data.index import Index
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.data.scan import scan_folder

pytestmark = pytest.mark.skipif(availability() is not None, reason=str(availability()))
OPTIONS = BackendOptions(resolution=32, num_threads=2, max_batch=16)


@pytest.fixture(scope="module")
def raw_beton(photo_index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beton") / "raw.beton"
    write_beton(photo_index, path, encoding="raw", max_side=120)
    return path


@pytest.fixture(scope="module")
def jpeg_beton(photo_index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beton") / "jpeg.beton"
    write_beton(photo_index, path, encoding="jpeg", max_side=120)
    return path


@pytest.fixture
def own_beton(raw_beton: Path, tmp_path: Path) -> Path:
    """A copy of a .beton, to be damaged."""
    path = tmp_path / "own.beton"
    path.write_bytes(raw_beton.read_bytes())
    return path


@pytest.fixture(scope="module")
def odd_index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Grayscale, CMYK, PNG under a .JPEG name, EXIF-rotated, progressive, palette with alpha, 1 pixel wide, large."""
    folder = tmp_path_factory.mktemp("odd") / "all"
    write_photo(folder / "a_plain.JPEG", 64, 48, 1, quality=95)
    photo = Image.open(folder / "a_plain.JPEG")
    photo.convert("L").save(folder / "b_gray.JPEG")
    photo.convert("CMYK").save(folder / "c_cmyk.JPEG")
    photo.save(folder / "d_png.JPEG", format="PNG")
    rotated = photo.getexif()
    rotated[0x0112] = 6
    photo.save(folder / "e_rotated.JPEG", exif=rotated)
    photo.save(folder / "f_progressive.JPEG", progressive=True)
    palette = (
        photo.resize((16, 12)).resize((64, 48), Image.Resampling.NEAREST).quantize(200)
    )  # dots would not survive JPEG
    palette.save(folder / "g_palette.JPEG", format="PNG", transparency=3)
    write_photo(folder / "h_narrow.JPEG", 1, 90, 2)
    write_photo(folder / "i_large.JPEG", 900, 300, 3, quality=95)
    return scan_folder(folder.parent)[0]


def copy_of(beton: Beton, row: int) -> np.ndarray:
    """The pixels of one copy, (H, W, 3), decoded by FFCV."""
    size = int(beton.sizes[row])
    stored = np.fromfile(beton.path, np.uint8, count=size, offset=int(beton.offsets[row]))
    height, width = int(beton.heights[row]), int(beton.widths[row])
    if beton.modes[row] == RAW:
        return stored.reshape(height, width, 3)
    pixels = np.empty((height, width, 3), np.uint8)
    assert ffcv_module("libffcv").imdecode(stored, pixels, height, width, height, width) == 0
    return pixels


def shrunk(index: Index, sample_id: int, max_side: int) -> np.ndarray:
    """What a copy should be."""
    image = read_rgb(index, sample_id).permute(1, 2, 0).contiguous().numpy()
    size = copy_size(image.shape[1], image.shape[0], max_side)
    return image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def rows_of(index: Index, ids: np.ndarray) -> PlanRows:
    at = index.rows_of(ids)
    plan = Plan(get_policy("imagenet_train"), plan_seed=3)
    return plan.rows(ids, np.zeros(len(ids)), index.widths[at], index.heights[at])


def pixels_of(path: Path, index: Index, ids: np.ndarray) -> torch.Tensor:
    opened = backend.FfcvBackend(Source(index, path), OPTIONS)
    try:
        return torch.cat([pixels.images for pixels in opened.stream([rows_of(index, ids)])])
    finally:
        opened.close()


def test_the_index_comes_back_from_the_file(photo_index: Index, raw_beton: Path, jpeg_beton: Path) -> None:
    for path in (raw_beton, jpeg_beton):
        index = read_beton_index(path)
        for name in ("ids", "labels", "widths", "heights"):
            ours, theirs = getattr(index, name), getattr(photo_index, name)
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
        assert index.classes == photo_index.classes
        assert index.fingerprint == photo_index.fingerprint
        assert index.num_parent == photo_index.num_parent
        assert len(index.subset(np.array([1, 5]))) == 2


def test_raw_copies_are_the_shrunk_reference_exactly(photo_index: Index, raw_beton: Path) -> None:
    beton = open_beton(raw_beton)
    for row in range(0, len(photo_index), 5):
        assert np.array_equal(copy_of(beton, row), shrunk(photo_index, row, 120))


def test_small_jpegs_keep_their_bytes_and_large_ones_are_shrunk(photo_index: Index, jpeg_beton: Path) -> None:
    beton = open_beton(jpeg_beton)
    small = np.maximum(photo_index.widths, photo_index.heights) <= 120
    assert 0 < small.sum() < len(small)
    assert np.all(beton.modes == JPEG)
    assert np.array_equal(beton.sizes[small], photo_index.sizes[small])
    assert np.maximum(beton.widths, beton.heights).max() == 120


@pytest.mark.parametrize(("encoding", "difference"), [("raw", 0.0), ("jpeg", 6.0)])
def test_odd_images_come_out_as_the_reference_reads_them(
    odd_index: Index, tmp_path: Path, encoding: format_of.Encoding, difference: float
) -> None:
    path = tmp_path / "odd.beton"
    write_beton(odd_index, path, encoding=encoding, max_side=300)
    beton = open_beton(path)
    for row in range(len(odd_index)):
        expected = shrunk(odd_index, row, 300).astype(np.int16)
        assert np.abs(copy_of(beton, row) - expected).mean() <= difference, odd_index.path_of(row)


def test_the_bytes_do_not_depend_on_the_number_of_threads(photo_index: Index, raw_beton: Path, tmp_path: Path) -> None:
    write_beton(photo_index, tmp_path / "one.beton", encoding="raw", max_side=120, num_workers=1)
    assert (tmp_path / "one.beton").read_bytes() == raw_beton.read_bytes()


def test_copies_fill_several_pages(tmp_path: Path) -> None:
    for number in range(12):
        write_photo(tmp_path / "photos" / "one" / f"{number:02d}.jpg", 700, 600, number)
    index = scan_folder(tmp_path / "photos")[0]
    write_beton(index, tmp_path / "pages.beton", encoding="raw", max_side=800)
    beton = open_beton(tmp_path / "pages.beton")
    assert len(np.unique(beton.offsets >> np.uint64(23))) > 1
    assert all(np.array_equal(copy_of(beton, row), shrunk(index, row, 800)) for row in range(12))


def test_progress_counts_to_the_end(photo_index: Index, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_beton(
        photo_index, tmp_path / "a.beton", encoding="jpeg", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(number, len(photo_index)) for number in range(1, len(photo_index) + 1)]


def test_an_existing_file_is_refused_or_replaced_on_request(photo_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "there.beton"
    path.write_text("precious")
    with pytest.raises(DataError, match=r"there.beton exists and nothing is overwritten"):
        write_beton(photo_index, path, encoding="raw")
    assert path.read_text() == "precious"
    write_beton(photo_index, path, encoding="raw", overwrite=True)
    assert len(read_beton_index(path)) == len(photo_index)


def test_bad_images_are_refused_by_name_and_nothing_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "one"
    for number in range(6):
        write_photo(folder / f"{number}.jpg", 60, 60, number)
    index = scan_folder(tmp_path / "photos")[0]
    (folder / "2.jpg").write_bytes(b"text")
    write_photo(folder / "4.jpg", 50, 60, 9)
    with pytest.raises(DataError, match=r"(?s)2 file\(s\).*one/2\.jpg.*one/4\.jpg: it has 50 x 60 pixels"):
        write_beton(index, tmp_path / "out" / "bad.beton", encoding="raw")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("options", "message"), [({"max_side": 8}, "--max-side"), ({"quality": 0}, "--quality")])
def test_senseless_options_are_refused(
    photo_index: Index, tmp_path: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_beton(photo_index, tmp_path / "a.beton", encoding="jpeg", **options)


def test_a_file_that_is_not_there_or_not_a_beton_is_refused(tmp_path: Path, photo_index: Index) -> None:
    with pytest.raises(DataError, match=r"none\.beton cannot be read: No such file"):
        read_beton_index(tmp_path / "none.beton")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        read_beton_index(tmp_path)
    photo_index.save(tmp_path / "index.beton")
    (tmp_path / "empty.beton").touch()
    for name in ("index.beton", "empty.beton"):
        with pytest.raises(DataError, match=rf"{name} is not a .beton file of FFCV"):
            read_beton_index(tmp_path / name)


def test_an_ffcv_file_of_another_program_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "foreign.beton"
    fields = {"image": ffcv_module("fields").RGBImageField(), "label": ffcv_module("fields").IntField()}
    writer = ffcv_module("writer").DatasetWriter(str(path), fields, num_workers=1)
    writer.from_indexed_dataset([(np.zeros((8, 8, 3), np.uint8), number) for number in range(4)])
    with pytest.raises(DataError, match=r"(?s)without Reflux's block.*launch/prepare\.py ffcv"):
        read_beton_index(path)


def test_truncated_files_are_refused(own_beton: Path) -> None:
    content = own_beton.read_bytes()
    for size in (len(content) - 1, len(content) - 24, len(content) // 2, 5000, 30, 7):
        own_beton.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"truncated|not a \.beton"):
            read_beton_index(own_beton)
    own_beton.write_bytes(content + b"more")
    with pytest.raises(DataError, match="truncated or was never finished"):
        read_beton_index(own_beton)


def test_every_flipped_byte_outside_the_images_is_noticed(own_beton: Path) -> None:
    content = own_beton.read_bytes()
    table_at = HEADER.unpack(content[: HEADER.size])[-1]
    block_at = content.rindex(b'{"classes"', 0, table_at)
    records_at = HEADER.size + 5 * ffcv_module("types").FieldDescType.itemsize
    records_end = records_at + 72 * 48
    places = np.random.default_rng(0).integers(records_at, records_end, 20).tolist()
    places += [0, 2, 4, 8, 16, 18, 30, records_at, records_end - 1, block_at, table_at - 1, table_at - 16, table_at]
    for place in [*places, block_at + 40, len(content) - 1]:
        own_beton.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError):
            read_beton_index(own_beton)


def test_a_newer_version_asks_for_an_update(own_beton: Path) -> None:
    content = own_beton.read_bytes()
    table_at = HEADER.unpack(content[: HEADER.size])[-1]
    start, end = content.rindex(b'{"classes"', 0, table_at), content.rindex(b"RFLXBETN", 0, table_at)
    text = json.dumps({**json.loads(content[start:end]), "version": 2}, sort_keys=True).encode()
    assert len(text) == end - start
    footer = b"RFLXBETN" + np.array([len(text), zlib.crc32(text)], "<u4").tobytes()
    own_beton.write_bytes(content[:start] + text + footer + content[table_at:])
    with pytest.raises(DataError, match=r"version 2 of Reflux's block, this program reads 1: update Reflux"):
        read_beton_index(own_beton)


def test_a_beton_of_a_subset_serves_it_and_nothing_else(photo_index: Index, raw_beton: Path, tmp_path: Path) -> None:
    part = photo_index.subset(np.arange(3, 72, 4))
    write_beton(part, tmp_path / "part.beton", encoding="raw", max_side=120)
    index = read_beton_index(tmp_path / "part.beton")
    assert np.array_equal(index.ids, part.ids)
    assert index.num_parent == 72
    ids = part.ids[[5, 0, 11]]
    whole = read_beton_index(raw_beton)
    assert torch.equal(pixels_of(tmp_path / "part.beton", index, ids), pixels_of(raw_beton, whole, ids))
    with pytest.raises(DataError, match=r"holds 18 samples and lacks 54 of those asked for"):
        backend.FfcvBackend(Source(whole, tmp_path / "part.beton"), OPTIONS)


def test_another_data_set_or_no_file_is_refused(photo_index: Index, raw_beton: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)same data set.*index: .*abc.*\.beton: "):
        backend.FfcvBackend(Source(replace(photo_index, fingerprint="abc"), raw_beton), OPTIONS)
    with pytest.raises(ConfigError, match=r"pass --beton"):
        backend.FfcvBackend(Source(photo_index), OPTIONS)


def test_boxes_are_scaled_rounded_and_stay_inside() -> None:
    boxes = np.array([[0, 0, 300, 1000], [299, 999, 1, 1], [10, 5, 5, 10], [1, 3, 2, 2], [150, 0, 1, 1000]])
    originals = (np.full(5, 1000), np.full(5, 300))
    copies = (np.full(5, 500, np.uint16), np.full(5, 150, np.uint16))
    expected = [[0, 0, 150, 500], [149, 499, 1, 1], [5, 2, 3, 6], [0, 2, 2, 1], [75, 0, 1, 500]]
    assert backend.scale_boxes(boxes, originals, copies).tolist() == expected
    assert np.array_equal(backend.scale_boxes(boxes, originals, originals), boxes)


def test_scaled_boxes_of_all_sizes_lie_inside() -> None:
    rng = np.random.default_rng(1)
    widths, heights = rng.integers(1, 900, (2, 4000))
    left, top = rng.integers(0, widths), rng.integers(0, heights)
    boxes = np.stack((top, left, rng.integers(1, heights - top + 1), rng.integers(1, widths - left + 1)), axis=1)
    copies = np.array([copy_size(int(w), int(h), 37) for w, h in zip(widths, heights, strict=True)])
    y, x, high, wide = backend.scale_boxes(boxes, (widths, heights), (copies[:, 0], copies[:, 1])).T
    assert min(y.min(), x.min()) >= 0
    assert min(high.min(), wide.min()) >= 1
    assert np.all(y + high <= copies[:, 1])
    assert np.all(x + wide <= copies[:, 0])


def test_training_and_validation_files_work_in_turn_in_one_process(
    photo_index: Index, raw_beton: Path, jpeg_beton: Path
) -> None:
    requests = [rows_of(photo_index, part) for part in np.split(photo_index.ids, 9)]
    expected = [pixels_of(path, photo_index, photo_index.ids) for path in (raw_beton, jpeg_beton)]
    opened = [backend.FfcvBackend(Source(photo_index, path), OPTIONS) for path in (raw_beton, jpeg_beton)]
    both = zip(opened[0].stream(requests), opened[1].stream(requests), strict=True)
    got = [torch.cat(images) for images in zip(*((a.images, b.images) for a, b in both), strict=True)]
    for one in opened:
        one.close()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))


def test_a_damaged_copy_names_file_and_row(own_beton: Path, jpeg_beton: Path) -> None:
    own_beton.write_bytes(jpeg_beton.read_bytes())
    beton = open_beton(own_beton)
    with own_beton.open("r+b") as file:
        file.seek(int(beton.offsets[7]))
        file.write(b"\0" * 100)
    with pytest.raises(BadImageError, match=r"own\.beton row 7 \(sample id 7\)"):
        pixels_of(own_beton, beton.index, np.arange(9))


def test_importing_ffcv_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ffcv_module("loader")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_ffcvs_own_loader_reads_the_file_and_does_not_disturb_the_backend(photo_index: Index, jpeg_beton: Path) -> None:
    before, threads = pixels_of(jpeg_beton, photo_index, photo_index.ids), torch.get_num_threads()
    batches = backend.native_loader(jpeg_beton, OPTIONS, seed=0)
    shapes = [tuple(next(batches).shape) for _ in range(6)]  # one and a half epochs
    batches.close()
    torch.set_num_threads(threads)
    assert shapes == [(16, 32, 32, 3)] * 6
    assert torch.equal(pixels_of(jpeg_beton, photo_index, photo_index.ids), before)
