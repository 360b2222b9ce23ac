"""Mounts: made, listed and ended. Only the process that serves one loads pyfuse3 and trio."""

from castfs.mount.launching import start_mount
from castfs.mount.options import MountOptions, parse_options
from castfs.mount.request import MountRequest, MountStatus
from castfs.mount.running import run_in_mount
from castfs.mount.status import list_mounts
from castfs.mount.unmounting import Unmounted, unmount, unmount_all

__all__ = [
    "MountOptions",
    "MountRequest",
    "MountStatus",
    "Unmounted",
    "list_mounts",
    "parse_options",
    "run_in_mount",
    "start_mount",
    "unmount",
    "unmount_all",
]
