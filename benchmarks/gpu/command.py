"""The command line of `python -m benchmarks gpu`."""

import tempfile
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from benchmarks.checks import check_folder, check_names, check_new_file, check_positive, class_folders
from benchmarks.show import sayer


def gpu(
    json_file: Annotated[Path | None, arg(name="json")] = None,
    quick: bool = False,
    data: Path | None = None,
    sections: tuple[str, ...] = (),
    minutes: float = 8.0,
    work: Path | None = None,
) -> None:
    """What only a GPU can settle: kernels, hand-overs, waits, restarts and precisions as checks, times beside them.

    Each section runs in a process of its own: one that fails or dies is reported, and the others go on. Ends with 1
    where a check has failed; what could not be run here says why, and is no failure.

    Args:
        json_file: File for all figures, with machine and versions.
        quick: Each section in its smallest sensible form, some two minutes.
        data: Folder with a folder of images per class, or with train/ and val/ (default: generated images).
        sections: Names of sections (default: all).
        minutes: After which no part begins any more; the sections' shares of it are for 8.
        work: Folder in which a temporary one is made for images, a store and small runs (default: the system's).
    """
    from benchmarks.gpu.findings import Setting
    from benchmarks.gpu.sections import section_names
    from benchmarks.gpu.suite import check_device, measure_gpu

    check_new_file("--json", json_file)
    check_names("section", sections, section_names())
    check_positive({"--minutes": minutes})
    check_folder("--work", work)
    check_device()
    say = sayer()
    data = None if data is None else class_folders(data, say).absolute()
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        setting = Setting("cuda:0", Path(temporary).absolute(), data, "quick" if quick else "full")
        measure_gpu(setting, sections, minutes, json_file, say)
