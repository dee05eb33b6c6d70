#!/usr/bin/python3
"""A passthrough file system that hangs, fails or folds case while it is told to.

hanging_fs.py BACKING MOUNT CONTROL [lower] [direct_io]

CONTROL is a directory with small files, read before each call:
  hang    names of the calls that do not return, separated by spaces
  errors  lines of a call and the name of the error that it answers with
  quota   most bytes that all files may have, and the error that a write beyond them answers with
Each call that hangs is noted in CONTROL/hung, a line with its name and path. It goes on after 20 s,
which is noted in CONTROL/expired.
"""

import ctypes
import errno
import fcntl
import os
import sys
import time

import fusepy

ROOT, MOUNT, CONTROL = sys.argv[1:4]
OPTIONS = sys.argv[4:]
LONGEST_HANG_S = 20


class Operations(ctypes.Structure):
    """The calls that fusepy knows, and those up to flock."""

    _fields_ = fusepy.fuse_operations._fields_ + [
        ("poll", ctypes.c_void_p),
        ("write_buf", ctypes.c_void_p),
        ("read_buf", ctypes.c_void_p),
        (
            "flock",
            ctypes.CFUNCTYPE(
                ctypes.c_int,
                ctypes.c_char_p,
                ctypes.POINTER(fusepy.fuse_file_info),
                ctypes.c_int,
            ),
        ),
    ]


class Fuse(fusepy.FUSE):
    def flock(self, path, info, operation):
        return self.operations("flock", path.decode(), info.contents.fh, operation)


fusepy.fuse_operations = Operations


def told(name):
    try:
        with open(os.path.join(CONTROL, name)) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def used():
    total = 0
    for directory, _, names in os.walk(ROOT):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                pass
    return total


class Passthrough(fusepy.Operations):
    use_ns = True

    def __call__(self, name, path, *args):
        if name in told("hang").split():
            with open(os.path.join(CONTROL, "hung"), "a") as file:
                file.write(f"{name} {path}\n")
            # A program that waits on its only thread could never end it.
            end = time.monotonic() + LONGEST_HANG_S
            while name in told("hang").split() and time.monotonic() < end:
                time.sleep(0.01)
            if time.monotonic() >= end:
                open(os.path.join(CONTROL, "expired"), "w").close()
        for line in told("errors").splitlines():
            failing, code = line.split()
            if failing == name:
                raise fusepy.FuseOSError(getattr(errno, code))
        return super().__call__(name, path, *args)

    def real(self, path):
        return ROOT + (path.lower() if "lower" in OPTIONS else path)

    def getattr(self, path, fh=None):
        status = os.lstat(self.real(path))
        names = "dev ino mode nlink uid gid size blocks".split()
        attributes = {f"st_{name}": getattr(status, f"st_{name}") for name in names}
        times = {f"st_{t}": getattr(status, f"st_{t}_ns") for t in ("atime", "mtime", "ctime")}
        return attributes | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.real(path))]

    def readlink(self, path):
        return os.readlink(self.real(path))

    def symlink(self, target, source):
        os.symlink(source, self.real(target))

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)

    def rmdir(self, path):
        os.rmdir(self.real(path))

    def unlink(self, path):
        os.unlink(self.real(path))

    def rename(self, old, new):
        os.rename(self.real(old), self.real(new))

    def link(self, target, source):
        os.link(self.real(source), self.real(target))

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)

    def utimens(self, path, times=None):
        os.utime(self.real(path), ns=times, follow_symlinks=False)

    def open(self, path, flags):
        return os.open(self.real(path), flags & ~getattr(os, "O_DIRECT", 0))

    def create(self, path, mode, info=None):
        return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        quota = told("quota").split()
        if quota and used() + len(data) > int(quota[0]):
            raise fusepy.FuseOSError(getattr(errno, quota[1]))
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path) if fh is None else fh, length)

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        os.close(fh)

    def fsync(self, path, datasync, fh):
        os.fdatasync(fh)

    def flock(self, path, fh, operation):
        fcntl.flock(fh, operation)

    def statfs(self, path):
        status = os.statvfs(self.real(path))
        names = "bavail bfree blocks bsize favail ffree files flag frsize namemax".split()
        return {f"f_{name}": getattr(status, f"f_{name}") for name in names}


Fuse(
    Passthrough(),
    MOUNT,
    foreground=True,
    use_ino=True,
    direct_io="direct_io" in OPTIONS,
    # What is not cached is asked for each time, so that any call can be made to hang.
    attr_timeout=0,
    entry_timeout=0,
    negative_timeout=0,
)
