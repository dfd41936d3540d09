"""Is it told right which file system holds a folder?"""

from pathlib import Path

import pytest

from stores.file_system import file_system_type, is_local, type_in_mounts

MOUNTS = r"""22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /data rw shared:2 - nfs4 server:/export rw
31 30 0:41 / /data/local rw shared:3 - xfs /dev/nvme0n1 rw
32 22 0:42 / /with\040space rw - fuse.sshfs host: rw
33 22 0:43 / /covered rw - ext4 /dev/vdb rw
34 22 0:44 / /covered rw master:7 propagate_from:2 - lustre mgs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/stores", "ext4"),
        ("/data/stores", "nfs4"),
        ("/data/local/stores", "xfs"),
        ("/datas", "ext4"),
        ("/with space/stores", "fuse.sshfs"),
        ("/covered", "lustre"),
    ],
)
def test_the_nearest_mount_says_which_file_system(folder: str, kind: str) -> None:
    assert type_in_mounts(MOUNTS, Path(folder)) == kind


def test_this_machines_file_systems() -> None:
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("no /proc here")
    assert file_system_type(Path("/proc")) == "proc"
    assert file_system_type(Path("/proc/self/../nowhere")) == "proc"
    assert is_local(Path("/proc"))
