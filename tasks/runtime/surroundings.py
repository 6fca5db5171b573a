"""Tell what a machine's surroundings lack, by the words that the operating system, git and DVC have for it.

A full disk, a folder that is read-only, a folder that is no git clone: each is one message with its remedy, and no
traceback. What has no words of its own here stays what it was: the caller decides, or it is a bug.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.runtime.errors import TransientError, UserError

Kind = type[UserError] | type[TransientError]
"""What mends a failure: a person, or waiting."""


@dataclass(frozen=True)
class Sign:
    """The words by which a failure is known, and what is to be done about it."""

    words: str
    """A regular expression that a message is searched for, whatever its case."""
    kind: Kind
    """What mends it."""
    text: str
    """Rule and remedy."""


_ROOM = "free space on it: make gc shows what may go, LAMPLIGHTER_HOME and LAMPLIGHTER_CACHE move work and cache"
_OWNER = "give the user that runs Lamplighter the right to read and write it, or set LAMPLIGHTER_HOME elsewhere"
_SYSTEM: dict[int, tuple[Kind, str]] = {
    errno.ENOSPC: (TransientError, f"the disk must have room, and is full; {_ROOM}"),
    errno.EDQUOT: (TransientError, f"the disk quota must have room, and is used up; {_ROOM}"),
    errno.EMFILE: (TransientError, "the process must be able to open files, and may open no more; raise ulimit -n"),
    errno.ENFILE: (TransientError, "the machine must be able to open files, and can open no more; end other programs"),
    errno.ENOMEM: (TransientError, "there must be memory, and there is no more; run less at once, or on more memory"),
    errno.EIO: (TransientError, "the disk must answer, and fails; look at the system's log (dmesg), replace the disk"),
    errno.ESTALE: (TransientError, "the network drive must answer, and its handle is stale; mount it again"),
    errno.EFBIG: (UserError, "files must be allowed to be this large, and are not; raise ulimit -f"),
    errno.EROFS: (UserError, f"the file system must be writable, and is read-only; {_OWNER}"),
    errno.EACCES: (UserError, f"the file or folder must be ours to use, and permission is denied; {_OWNER}"),
    errno.EPERM: (UserError, f"the file or folder must be ours to use, and that is not permitted; {_OWNER}"),
    errno.ENAMETOOLONG: (UserError, "a path must be short enough for the disk, and is not; work in a shorter path"),
    errno.EEXIST: (UserError, "a folder must lie there or be made, and another thing is there; move it away"),
    errno.EISDIR: (UserError, "a file must lie there, and a folder does; move the folder away"),
    errno.ENOTDIR: (UserError, "a folder must lie there, and a file does; move the file away"),
    errno.ELOOP: (UserError, "links must lead to a file, and lead in a circle; remove the link"),
}
"""Failures of the operating system, by number: programs in other languages print the same words for them."""

_AWAY = "where its disk is away, bring that back; where it lies elsewhere, let LAMPLIGHTER_ORIGIN name the place"
_NO_REPOSITORY = "'([^']+)' does not appear to be a git repository|repository '([^']+)' does not exist"
"""What git says of a path, here or on a server that it reaches by ssh, at which it finds no repository."""

_PROGRAMS = (
    Sign(
        "access denied or repository not exported",
        TransientError,
        f"the origin must be there, and its server has none of that name; {_AWAY}",
    ),
    Sign(
        f"not a git repository|{_NO_REPOSITORY}",
        UserError,
        "this must be a git clone, and is not; clone the repository with git (a ZIP of it has no history), and let "
        "LAMPLIGHTER_ORIGIN, where it is set, name a git repository",
    ),
    Sign(
        "dubious ownership",
        UserError,
        "the repository must belong to the user that runs git, and belongs to another one; give it to that user, or "
        "trust it: git config --global --add safe.directory <the repository's path>",
    ),
    Sign(
        "author identity unknown|committer identity unknown|tell me who you are|unable to auto-detect email|"
        "empty ident name|identity string to not be empty",
        UserError,
        "git must know who commits, and does not; git config --global user.name 'Your Name', and user.email alike",
    ),
    Sign(
        r"permission denied \(publickey|authentication failed|could not read (username|password)|invalid credentials|"
        r"returned error: 40[13]|host key verification failed|terminal prompts disabled",
        UserError,
        "the origin must let us in, and refuses; renew the key or token that git uses for it",
    ),
    Sign(
        "repository not found|repository '[^']*' not found",
        UserError,
        "the origin must exist, and the other side knows none of that name; correct its address or our rights there",
    ),
    Sign(
        "hook declined|protected (branch|ref|tag)|deny updating|denied to|shallow update not allowed",
        UserError,
        "the origin must take refs/exps/* and tags, and its rules refuse them; allow them there for this user",
    ),
    Sign(
        "ambiguous argument 'head'|does not have any commits yet|remote head refers to nonexistent ref",
        UserError,
        "the origin must have a commit, and has none; commit and push the project first",
    ),
    Sign(
        "path '[^']*' (does not exist in|exists on disk, but not in) 'head'",
        UserError,
        "the file must be committed, and is not; git add, git commit, and push to the origin",
    ),
    Sign(
        r"object file \S* is empty|loose object .* is corrupt|bad object|unable to read tree|index file corrupt|"
        "bad signature 0x|index file smaller than expected",
        UserError,
        "git's own data must be whole, and are damaged; run git fsck there, and clone anew where it complains",
    ),
    Sign(
        "bad config line|bad config variable|configuration error|config file error|unable to parse config",
        UserError,
        "the configuration of git and DVC must be readable, and is not; mend the file that the message names "
        "(.git/config, .dvc/config or config.local)",
    ),
    Sign(
        "not inside of a dvc repository|no remote provided|no default remote|remote '[^']*' doesn't exist",
        UserError,
        "the repository must be set up for DVC with a default remote, and is not; restore .dvc/config from git",
    ),
    Sign(
        "unable to acquire lock|index.lock': file exists|another git process|cannot lock ref",
        TransientError,
        "one program works in a repository at a time, and another one does; wait for its end, or delete the lock "
        "that it left when it was killed",
    ),
    Sign(
        "invalidaccesskeyid|signaturedoesnotmatch|accessdenied|access denied|expiredtoken|unable to locate credentials|"
        "the (aws access key id|request signature|provided token|security token)",
        UserError,
        "the DVC remote must let us in, and refuses; check AWS_* of this process, and its rights on the bucket of "
        ".dvc/config",
    ),
    Sign(
        "nosuchbucket|bucket does not exist",
        UserError,
        "the bucket of the DVC remote must exist, and does not; correct the url in .dvc/config, or make the bucket",
    ),
    Sign(
        "database or disk is full|out of diskspace",
        TransientError,
        f"the disk must have room, and is full; {_ROOM}",
    ),
)
_COMMON = (errno.EIO, errno.EPERM, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""Numbers whose words are too common in the output of programs."""
_SIGNS = _PROGRAMS + tuple(
    Sign(re.escape(os.strerror(number)), kind, text)
    for number, (kind, text) in _SYSTEM.items()
    if number not in _COMMON
)
_MADE_BY_A_STAGE = re.compile(r"data/\S+$")
_FULL = re.compile("no space left on device|disk quota exceeded|database or disk is full", re.IGNORECASE)


def explained(error: BaseException) -> UserError | TransientError | None:
    """Return the message in place of an exception that the surroundings have caused; None for any other.

    Files are written by many libraries: a full disk is known by its words, too, the rest by the system's number alone.
    """
    if isinstance(error, MemoryError):
        return _SYSTEM[errno.ENOMEM][0](f"{_SYSTEM[errno.ENOMEM][1]} ({error or 'MemoryError'})")
    if isinstance(error, FileNotFoundError) and _MADE_BY_A_STAGE.match(place := str(error.filename or error)):
        return UserError(
            f"{place}: an earlier stage must have made it, and it is not there; dvc repro <stage>@<product> makes all "
            "that a stage reads first"
        )
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        kind, text = _SYSTEM[error.errno]
        place = f"{error.filename}: " if error.filename else ""
        return kind(f"{place}{text} ({error.strerror})")
    if isinstance(error, ConnectionError | TimeoutError):
        return TransientError(f"the other side must answer, and did not; wait, or look at the network ({error})")
    if _FULL.search(str(error)):
        return TransientError(f"{_SYSTEM[errno.ENOSPC][1]} ({' '.join(str(error).split())[:300]})")
    return None


def explained_output(name: str, output: str) -> UserError | TransientError | None:
    """Return the message for a program that failed, by the words of its output; None where none of them is known.

    A path at which nothing lies, where git wants a repository, may be that of a disk that is away for a while.
    """
    if (found := re.search(_NO_REPOSITORY, output)) and _is_empty(place := found[1] or found[2]):
        return TransientError(f"{name}: {place}: the origin must be there, and nothing is; {_AWAY}")
    for sign in _SIGNS:
        if found := re.search(f"^.*(?:{sign.words}).*$", output, re.IGNORECASE | re.MULTILINE):
            return sign.kind(f"{name}: {sign.text}\n{' '.join(found[0].split())[:500]}")
    return None


def _is_empty(place: str) -> bool:
    """Return whether nothing lies at a path, such as at one where a disk is to be mounted."""
    path = Path(place)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
