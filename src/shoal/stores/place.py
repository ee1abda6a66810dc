"""Where a journal can be, and where it had better not."""

import re
from pathlib import Path

import psutil

# file systems on which another machine may hold what we write, or lock, by the names of their kinds
NETWORK = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|lustre|ceph|beegfs|gpfs|glusterfs|9p|afs|"
    r"fuse\.(sshfs|glusterfs|ceph|s3fs|gcsfuse|blobfuse2?|rclone|juicefs)"
)


def shaky(home: Path) -> str | None:
    """Why `home` is no good place for journals, and which is; None if it is one."""
    there = home.resolve()
    mounts = [
        (len(part.mountpoint), part.fstype)
        for part in psutil.disk_partitions(all=True)
        if there.is_relative_to(part.mountpoint)
    ]
    kind = max(mounts, default=(0, ""))[1]
    if not NETWORK.fullmatch(kind):
        return None
    return (
        f"{home} is on a network file system ({kind}): SQLite, which keeps the journal, relies on "
        "locks and shared memory that these often lack, so it may be damaged. Keep experiments on "
        "a disk of this machine (--home, or $SHOAL_HOME); only checkpoints have to be shared."
    )
