"""Write files that must survive: kills, full disks and power cuts. Knows nothing of what is in them.

The only part of tlcompile that writes files (tests/test_architecture.py). A file is written under a
temporary name beside its place, brought to the disk, renamed, and the folder is brought to the
disk: at every instant the old content or the new one stands there, whole. A *generation* is a
folder of files that belong together; its manifest.json has the size and SHA-256 of each.

    system.py        the table of system calls, and OSErrors as errors that say what to do
    leftovers.py     names of temporary files, and whose they are
    files.py         write_file, replacing, append_line, make_folder, mark_used, put_aside
    manifest.py      verify_folder, read_verified
    locks.py         take_lock
    shared_file.py   SharedFile: one file that several generations hold
    generations.py   commit_folder, recover, sweep_temporaries
"""

from tlcompile.durable.files import (
    append_line,
    make_folder,
    mark_used,
    put_aside,
    replacing,
    write_file,
)
from tlcompile.durable.generations import commit_folder, recover, sweep_temporaries
from tlcompile.durable.leftovers import remove_at_once, remove_folder
from tlcompile.durable.locks import Lock, take_lock
from tlcompile.durable.manifest import MANIFEST, read_verified, verify_folder
from tlcompile.durable.shared_file import SharedFile

__all__ = [
    "MANIFEST",
    "Lock",
    "SharedFile",
    "append_line",
    "commit_folder",
    "make_folder",
    "mark_used",
    "put_aside",
    "read_verified",
    "recover",
    "remove_at_once",
    "remove_folder",
    "replacing",
    "sweep_temporaries",
    "take_lock",
    "verify_folder",
    "write_file",
]
