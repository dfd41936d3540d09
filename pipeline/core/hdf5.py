"""What all our HDF5 files share: the format's version, and texts beside datasets as strings of fixed length.

HDF5 keeps strings of variable length in a heap without a checksum, and one wrong byte there makes HDF5 2.0 look for
the string forever. One of fixed length lies in the object's header, which has a checksum.
"""

import h5py
import numpy as np

# of the files' format: "latest" is whatever the writer's HDF5 knows, which older ones cannot read (seen with virtual
# datasets of HDF5 2.0 in 1.14); 1.10 has all that is needed, attributes beyond 64 KB too
HDF5_VERSION = ("v110", "v110")


def write_text(where: h5py.Group, name: str, text: str) -> None:
    """Make attribute `name`, UTF-8."""
    data = text.encode()
    where.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))


def read_text(where: h5py.Group, name: str) -> str:
    """Read attribute `name`, a string of any kind.

    Raises:
        KeyError: there is none.
        ValueError: it is not UTF-8.
    """
    value = where.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)
