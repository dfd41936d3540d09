"""The JPEG files of the sections that decode: --data's, or generated ones; and DALI's decoder on the device."""

from dataclasses import replace

from benchmarks._shared.pixels import backend_of
from benchmarks.gpu.findings import Setting
from pipeline.data.backend import Backend, BackendOptions, DaliDecoding
from pipeline.data.demo_images import DemoSpec, write_demo
from pipeline.data.index import Index
from pipeline.data.scan import scan_folder


def image_index(setting: Setting) -> Index:
    """Index of the folder of class folders; images of 96 to 257 pixels are drawn once where there is none."""
    if setting.data is not None:
        return scan_folder(setting.data)[0]
    folder = setting.work / "images"
    write_demo(folder, DemoSpec(train_per_class=setting.pick(100, 20, 2), val_per_class=1))
    return scan_folder(folder / "train")[0]


def decoding_of(name: str, options: BackendOptions) -> tuple[type[Backend], BackendOptions]:
    """The backend that a section calls `name`, and its options: "dali-mixed" decodes on the device, "dali" does not."""
    return backend_of(name), replace(options, dali=DaliDecoding("mixed")) if name == "dali-mixed" else options
