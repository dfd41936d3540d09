"""From flags to data sets: finds or makes the indexes, picks the backends."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.config import DaliDecoder, Files, Reading, RunConfig
from pipeline.core.command import progress
from pipeline.core.errors import ConfigError, DataError
from pipeline.data.backend import Backend, Source, resolve_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.beton import read_beton_index
from pipeline.data.beton_writer import write_beton
from pipeline.data.dali_decoder import check_decoder_is_used, choose_decoder, is_dali
from pipeline.data.index import Index, check_same_classes, load_index, select_subset
from pipeline.data.scan import scan_folder
from pipeline.devices.world import World

_SPOT_CHECKS = 32
_FEW_TO_COPY = 20_000  # a minute or so on two cores
_SYNTHETIC_VAL_SHARE = 20


@dataclass(frozen=True)
class Datasets:
    """The two data sets of a run and the backends that read them; how DALI decodes, where it is one of these."""

    train: Source
    val: Source
    train_backend: type[Backend]
    val_backend: type[Backend]
    dali_decoder: DaliDecoder = "auto"


def open_datasets(config: RunConfig, world: World, folder: Path | None = None) -> Datasets:
    """Open training and validation data; the main rank makes an index that is missing, in RUN/index.

    Args:
        config: the run's.
        world: the ranks.
        folder: what stands in for RUN where nothing may be saved there.

    Raises:
        ConfigError: folders not named, a backend that does not fit, or a decoder that fails its proof.
        DataError: bad folders, files or indexes, by name.
    """
    files = replace(config.files, out=folder or config.files.out)
    train, train_backend = open_train(files, config.running, world)
    val, val_backend = open_val(files, config.running, world, train_backend)
    check_same_classes(train.index, val.index)
    if config.files.subset is not None:
        train = Source(select_subset(train.index, config.files.subset), train.beton)
    check_decoder_is_used(config.running, train_backend, val_backend)
    decoder, (of_train, of_val) = config.running.dali_decoder, map(is_dali, (train_backend, val_backend))
    if of_train or (of_val and decoder != "auto"):  # val alone: on the CPU, unless asked
        decoder = choose_decoder(config.running, (train if of_train else val).index, world)
    return Datasets(train, val, train_backend, val_backend, decoder)


def open_train(files: Files, reading: Reading, world: World) -> tuple[Source, type[Backend]]:
    """The whole training data and the backend that reads them; see `open_datasets`."""
    backend = _resolve(reading.backend, files.beton, world)
    if backend.reads == "nothing":
        return Source(synthetic_index(reading.synthetic_samples, reading.synthetic_classes)), backend
    source = _open(files.beton, _folder(files, "train"), files.train_index, files.out, "train", world)
    if backend.reads == "beton" and source.beton is None:
        source = _with_beton(source.index, files.out, world)
    return source, backend


def open_val(files: Files, reading: Reading, world: World, train: type[Backend]) -> tuple[Source, type[Backend]]:
    """The validation data and the backend that reads them, that of `train` where it can; see `open_datasets`."""
    if train.reads == "nothing":
        num_val = max(1, reading.synthetic_samples // _SYNTHETIC_VAL_SHARE)
        return Source(synthetic_index(num_val, reading.synthetic_classes)), train
    fits = train.reads == ("files" if files.val_beton is None else "beton")
    backend = train if fits else _resolve("auto", files.val_beton, world)
    return _open(files.val_beton, _folder(files, "val"), files.val_index, files.out, "val", world), backend


def _resolve(name: str, beton: Path | None, world: World) -> type[Backend]:
    return resolve_backend(name, has_beton=beton is not None, on_cuda=world.device.type == "cuda")


def _folder(files: Files, split: str) -> Path | None:
    named: Path | None = getattr(files, f"{split}_dir")
    if named is not None or files.data is None:
        return named
    return files.data / split


def _open(beton: Path | None, folder: Path | None, index: Path | None, run: Path, split: str, world: World) -> Source:
    if beton is not None:
        return Source(read_beton_index(beton), beton)
    if folder is None:
        prefix = "" if split == "train" else "val-"
        raise ConfigError(
            f"no {split} images were named: give --data DIR (with {split}/ in it), --{split}-dir DIR,"
            f" or --{prefix}beton FILE"
        )
    return Source(_folder_index(folder, index, run, split, world))


def _folder_index(folder: Path, named: Path | None, run: Path, split: str, world: World) -> Index:
    own = run / "index" / f"{split}.index.h5"
    prepared = folder.parent / f"{folder.name}.index.h5"
    path = named or (prepared if prepared.exists() else own)
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}\nImages are expected in {folder}/<class name>/<file>.")
    if path == own:
        world.main_first(lambda: _make_index(folder, own))
    index = load_index(path, root=folder.resolve(), verify=world.is_main and path != own)
    if path == own:
        world.barrier()  # a rank that goes on may be refused, and take the folder back that others still read
    _spot_check(index, path)
    return index


def _with_beton(index: Index, run: Path, world: World) -> Source:
    """The source of a run that asks for FFCV and names no file: a small data set is copied into the run."""
    if len(index) > _FEW_TO_COPY:
        raise ConfigError(
            f"the ffcv backend reads a .beton file, and {len(index):,} images are too many to copy in passing"
            f" (up to {_FEW_TO_COPY:,} are).\n"
            "Write it once: python launch/prepare.py ffcv --folder DIR --out FILE.beton. Then pass --beton FILE.beton"
        )
    path = run / "index" / "train.beton"
    world.main_first(lambda: _make_beton(index, path))
    source = Source(read_beton_index(path), path)
    world.barrier()  # as for an index
    return source


def _make_beton(index: Index, path: Path) -> None:
    if path.exists() and read_beton_index(path).fingerprint == index.fingerprint:
        return
    print(f"no --beton given: copying {len(index):,} images to {path}", flush=True)
    write_beton(index, path, encoding="jpeg", overwrite=True)


def _make_index(folder: Path, path: Path) -> None:
    if path.exists():
        load_index(path)  # verified before any rank reads it: all of them find the same
        return
    print(
        f"no index of {folder}: reading its files once. `launch/prepare.py index` makes one for all runs.", flush=True
    )
    with progress(folder.name, "files") as on_progress:
        index = scan_folder(folder, on_progress=on_progress)[0]
    index.save(path)


def _spot_check(index: Index, path: Path) -> None:
    """Compare the byte sizes of a few files with the index: finds a data set that was replaced under its index."""
    count = min(_SPOT_CHECKS, len(index))
    for row in np.arange(count) * len(index) // count:
        file = Path(index.path_of(int(index.ids[row])))
        found = file.stat().st_size if file.is_file() else None
        there = "missing" if found is None else f"{found} bytes"
        if found != int(index.sizes[row]):
            raise DataError(
                f"the index {path} does not describe the folder {index.root}: {file}\n"
                f"  index:  {int(index.sizes[row])} bytes\n  folder: {there}\n"
                "Make the index again with launch/prepare.py index, or remove it."
            )
