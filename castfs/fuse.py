"""The kernel's FUSE protocol: those structs and numbers of linux/fuse.h (7.40) that castfs packs
and reads itself. Names are the header's; all integers have the machine's byte order.
"""

from __future__ import annotations

import enum
from struct import Struct


class Opcode(enum.IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    CREATE = 35
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    TMPFILE = 51
    STATX = 52


NOTIFY_STORE = 4  # enum fuse_notify_code

#: struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen and padding.
IN_HEADER = Struct("=IIQQIIII")
#: struct fuse_out_header: len, -errno (or a notification's code, with unique 0), unique.
OUT_HEADER = Struct("=IiQ")
#: struct fuse_read_in and what READDIR and READDIRPLUS send, too: fh, offset, size, and so on.
READ_IN = Struct("=QQIIQII")
#: struct fuse_entry_out without its attr: nodeid, generation, entry_valid, attr_valid, and the
#: nanoseconds of the last two.
ENTRY_OUT = Struct("=QQQQII")
#: struct fuse_attr: ino, size, blocks, atime, mtime, ctime (seconds, signed), their nanoseconds,
#: mode, nlink, uid, gid, rdev, blksize, flags.
ATTR = Struct("=QQQqqqIIIIIIIIII")
#: struct fuse_attr_out without its attr: attr_valid, attr_valid_nsec, padding.
ATTR_OUT = Struct("=QII")
#: struct fuse_dirent without its name: ino, off, namelen, type.
DIRENT = Struct("=QQII")
#: struct fuse_direntplus without its name, all in one: ENTRY_OUT, ATTR and DIRENT.
DIRENTPLUS = Struct("=" + "".join(s.format[1:] for s in (ENTRY_OUT, ATTR, DIRENT)))
#: struct fuse_init_in up to flags: major, minor, max_readahead, flags. With FUSE_INIT_EXT flags2
#: follows.
INIT_IN = Struct("=IIII")
INIT_FLAGS2 = Struct("=I")
#: struct fuse_interrupt_in: the unique of the request that is interrupted.
INTERRUPT_IN = Struct("=Q")
#: struct fuse_kstatfs: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize.
KSTATFS = Struct("=QQQQQIII28x")
#: struct fuse_init_out up to max_stack_depth: major, minor, max_readahead, flags, max_background,
#: congestion_threshold, max_write, time_gran, max_pages, map_alignment, flags2, max_stack_depth.
INIT_OUT = Struct("=IIIIHHIIHHII")
#: struct fuse_open_out: fh, open_flags, backing_id.
OPEN_OUT = Struct("=QIi")
#: struct fuse_release_in up to fh.
RELEASE_IN = Struct("=Q")
#: struct fuse_backing_map: fd, flags, padding. FUSE_DEV_IOC_BACKING_OPEN returns a backing_id,
#: which FUSE_DEV_IOC_BACKING_CLOSE takes.
BACKING_MAP = Struct("=iIQ")
BACKING_ID = Struct("=I")
DEV_IOC_BACKING_OPEN = 0x4010E501
DEV_IOC_BACKING_CLOSE = 0x4004E502
#: struct fuse_notify_store_out: nodeid, offset, size, padding.
NOTIFY_STORE_OUT = Struct("=QQII")

ENTRY_SIZE = ENTRY_OUT.size + ATTR.size

#: Flags of INIT.
ASYNC_DIO = 1 << 15
CACHE_SYMLINKS = 1 << 23
INIT_EXT = 1 << 30
#: Of flags2, whose bits follow those of flags.
PASSTHROUGH = 1 << 37

#: Flags of a reply to OPEN.
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5
FOPEN_PASSTHROUGH = 1 << 7

#: A record of a directory page starts at a multiple of this (FUSE_DIRENT_ALIGN).
RECORD_ALIGN = 8
#: Seconds: the kernel clamps them to the longest that it can express, which is centuries.
FOREVER = 2**64 - 1
#: What pyfuse3 says, too: the kernel would otherwise show a size of its own.
BLKSIZE = 4096
