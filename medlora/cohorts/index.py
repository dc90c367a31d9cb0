"""The series of an archive of any size, from headers alone; the second time only what has changed is read."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import add, attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import pandas as pd

from medlora._version import __version__
from medlora.errors import MedloraError
from medlora.files import cannot_write, writing
from medlora.progress import say, track

if TYPE_CHECKING:
    from medlora.scans import Excluded, Header
    from medlora.scans.header import Values

Batch: TypeAlias = tuple[list[tuple[Any, ...]], dict[str, str]]

BATCH = 500
IN_PROCESS = 20_000  # with fewer files than this, starting workers takes longer than it saves
SHOWN = (
    "Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ViewPosition", "ConvolutionKernel",
    "SliceThickness", "Rows", "Columns", "TransferSyntaxUID",
)  # fmt: skip
"""Header fields that the table of series shows, from its first file."""

_HELD = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", *SHOWN)
_COLUMNS = ("path", "size", "mtime", "kind", "problem", "patient", "study", "series", *SHOWN, "base", "header")
_SCHEMA = f"""
CREATE TABLE files (path BLOB PRIMARY KEY, {", ".join(f'"{name}"' for name in _COLUMNS[1:])}) WITHOUT ROWID;
CREATE TABLE bases (name TEXT PRIMARY KEY, header TEXT) WITHOUT ROWID;
CREATE TABLE meta (made_with TEXT, listing TEXT, series TEXT);
"""
_PAIRED = (b".hdr", b".hdr.gz")
_size, _modified, _changed = map(attrgetter, ("st_size", "st_mtime_ns", "st_ctime_ns"))
_CHECK = 68  # where a SQLite file keeps its application ID, four bytes: here a checksum


@dataclass
class Index:
    """What the headers of an archive say.

    Attributes:
        folder: the archive.
        series: one row per series (or file without one): ``series`` and ``study`` (hashes of their UIDs), ``patient``
            (a running number), ``kind``, ``files``, ``bytes``, then header fields of its first file. No identifiers.
        problems: how many files cannot be used, by code.
        excluded: folders and links that could not be followed, and files that vanished.
        files: how many there are.
        read: how many of them were read this time; the others were known.
    """

    folder: Path
    series: pd.DataFrame
    problems: dict[str, int]
    excluded: list[Excluded]
    files: int
    read: int
    _database: sqlite3.Connection = field(repr=False)

    def headers(self) -> Iterator[Header]:
        """The header of every file, in the order of their paths. They hold identifiers."""
        from medlora.scans import Header

        @lru_cache(256)
        def values_of(base: str) -> Values:
            (found,) = self._database.execute("SELECT header FROM bases WHERE name = ?", (base,)).fetchone()
            return dict(json.loads(found))

        rows = self._database.execute("SELECT path, kind, size, base, header FROM files ORDER BY path")
        for path, kind, size, base, text in rows:
            held = json.loads(text)
            if base is not None:
                held["values"] = values_of(base) | held["values"]
            yield Header.from_dict({**held, "kind": kind, "size": size, "path": self.folder / os.fsdecode(path)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep what is known for the next time, in one step. The file holds identifiers: it is for its owner's eyes.

        Raises:
            MedloraError: it cannot be written.
        """
        with writing(path) as unfinished:
            unfinished.touch(mode=0o600)
            try:
                with closing(sqlite3.connect(unfinished)) as kept:
                    self._database.backup(kept)
            except sqlite3.OperationalError as error:
                raise cannot_write(path, OSError(str(error))) from error
            with unfinished.open("r+b") as file:
                check = _check_of(file)
                file.seek(_CHECK)
                file.write(check)

    def close(self) -> None:
        """Let go of the headers."""
        self._database.close()


def index(
    folder: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None, workers: int | None = None
) -> Index:
    """List the series of an archive without decoding pixels, in several processes.

    Files that cannot be read, folders that may not be entered, links in circles and files that vanish meanwhile are
    counted and named in the result; none of them ends the work.

    Args:
        folder: the archive.
        cache: file that keeps the headers (SQLite); where it exists, a file of the same path, size and time of
            modification or change is not read again. It holds identifiers. None keeps nothing.
        workers: number of processes; as many as there are processors, at most 8, where None.

    Raises:
        MedloraError: ``folder`` is no folder, or the cache cannot be written.
    """
    if cache is not None:
        cache = Path(cache)
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.touch(mode=0o600)  # it may turn out only after hours that it cannot be written
        except OSError as error:
            raise cannot_write(cache, error) from error
    kept = _open(cache)
    found = _index(folder, kept, workers)
    if cache is not None and found._database is not kept:
        found.save(cache)
    return found


def index_again(folder: str | os.PathLike[str], known: Path | None, workers: int | None = None) -> Index:
    """As `index`, with what ``known`` holds (if anything) to begin with, and nothing written but by `Index.save`."""
    try:
        kept = _open(known if known is not None and known.is_file() else None)
    except MedloraError:
        say("the earlier index of headers cannot be used: all headers are read again")
        kept = _open(None)
    return _index(folder, _in_memory(kept), workers)


def _index(folder: str | os.PathLike[str], kept: sqlite3.Connection, workers: int | None) -> Index:
    """What is in ``folder``: by ``kept`` itself where nothing has changed, else by a copy of it that is brought up to
    date."""
    from medlora.scans import Code
    from medlora.scans.folder import listing

    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise MedloraError(f"{folder} is not a folder", "give the folder that holds the scans")
    excluded: list[Excluded] = []
    names: list[str] = []
    sizes, times = array("q"), array("q")
    for paths, statuses in listing(folder, excluded):
        names += paths
        sizes.extend(map(_size, statuses))
        # What unpacks or copies files may set their modification time back; the time of change they cannot.
        times.extend(map(add, map(_modified, statuses), map(_changed, statuses)))
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogatepass"))
    digest.update(sizes.tobytes() + times.tobytes())
    listed = digest.hexdigest()
    known, series = kept.execute("SELECT listing, series FROM meta").fetchone()
    if known == listed:
        table, problems = json.loads(series)
        return Index(folder, pd.DataFrame(**table), problems, excluded, len(names), 0, kept)
    database = _in_memory(kept)
    # As bytes, since a name need not be valid text
    now = {os.fsencode(name): signature for name, *signature in zip(names, sizes, times, strict=True)}
    read = _update(folder, now, database, workers)
    problems = dict(
        database.execute("SELECT problem, COUNT(*) FROM files WHERE problem <> '' GROUP BY problem ORDER BY problem")
    )
    found = _series(database)
    with database:
        if Code.CannotOpen.name in problems:  # what could not be opened is tried again the next time
            database.execute("UPDATE files SET mtime = -1 WHERE problem = ?", (Code.CannotOpen.name,))
            listed = ""
        table = found.to_dict("split", index=False)
        database.execute("UPDATE meta SET listing = ?, series = ?", (listed, json.dumps([table, problems])))
    return Index(folder, found, problems, excluded, len(names), read, database)


def _update(folder: Path, now: dict[bytes, list[int]], database: sqlite3.Connection, workers: int | None) -> int:
    """Bring the database to what is there ``now``; how many files had to be read."""
    before = {path: [size, mtime] for path, size, mtime in database.execute("SELECT path, size, mtime FROM files")}
    gone = [path for path in before if path not in now]
    changed = [path for path, signature in now.items() if before.get(path) != signature]
    # The digest of a pair is over both files of it: a header is read again where anything beside or below it changed.
    headers = database.execute("SELECT path, kind FROM files WHERE kind IN ('nifti', 'metaimage')") if before else ()
    paired = {path for path, kind in headers if path in now and (kind == "metaimage" or path.lower().endswith(_PAIRED))}
    touched = {parent for path in (*changed, *gone) for parent in _parents(path)} if paired else set()
    changed += sorted(path for path in paired.difference(changed) if next(_parents(path)) in touched)
    marks = ", ".join("?" * len(_COLUMNS))
    with database:
        database.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in gone])
        for rows, bases in _read(folder, changed, workers):
            stamped = [(row[0], *now[row[0]], *row[1:]) for row in rows]
            database.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", stamped)  # noqa: S608
            database.executemany("INSERT OR IGNORE INTO bases VALUES (?, ?)", bases.items())
        if gone or len(changed) < len(now):
            database.execute("DELETE FROM bases WHERE name NOT IN (SELECT base FROM files WHERE base IS NOT NULL)")
    return len(changed)


def _parents(path: bytes) -> Iterator[bytes]:
    """The folders that a file is in, from its own to that of the archive, which is empty."""
    while path:
        path = os.path.dirname(path)  # noqa: PTH120 - names of bytes
        yield path


def _open(cache: Path | None) -> sqlite3.Connection:
    """The cache, to read from, where there is one of this version; else an empty database in memory."""
    made_with = f"{__version__} {_fields()}"
    if cache is not None and cache.stat().st_size:
        try:
            with cache.open("rb") as file:
                if _check_of(file) != _kept_check(file):
                    raise sqlite3.DatabaseError("its checksum is another one")
            kept = sqlite3.connect(f"{cache.absolute().as_uri()}?mode=ro", uri=True)
            if kept.execute("SELECT made_with FROM meta").fetchone() == (made_with,):
                return kept
            kept.close()
        except (OSError, sqlite3.DatabaseError) as error:
            raise MedloraError(
                f"{cache} is not a cache of medlora, is damaged, or cannot be read ({error})",
                "remove it, or choose another place for the cache",
            ) from None
        say("the cache of headers is of another version: all headers are read again")
    database = sqlite3.connect(":memory:")
    database.executescript(_SCHEMA)
    with database:
        database.execute("INSERT INTO meta VALUES (?, '', '')", (made_with,))
    return database


def _in_memory(kept: sqlite3.Connection) -> sqlite3.Connection:
    """A copy of the database that may be changed; ``kept`` is let go of."""
    database = sqlite3.connect(":memory:")
    with closing(kept):
        kept.backup(database)
    return database


def _check_of(file: BinaryIO) -> bytes:
    """A checksum over a database file, but for the four bytes that keep it: SQLite itself would miss most damage."""
    file.seek(0)
    start = file.read(_CHECK)
    file.seek(_CHECK + 4)
    check = zlib.crc32(start)
    while chunk := file.read(1 << 20):
        check = zlib.crc32(chunk, check)
    return check.to_bytes(4, "big")


def _kept_check(file: BinaryIO) -> bytes:
    file.seek(_CHECK)
    return file.read(4)


def _fields() -> str:
    """A name for the set of elements that headers hold, so that another version's cache is not taken for ours."""
    from medlora.scans import Header
    from medlora.scans.elements import PRESENT, WANTED

    held = [sorted(WANTED.values()), sorted(PRESENT.values()), [item.name for item in fields(Header)], SHOWN]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]


def _read(folder: Path, paths: Sequence[bytes], workers: int | None) -> Iterator[Batch]:
    from joblib import Parallel, delayed

    root = os.fspath(folder)
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    workers = 1 if len(paths) < IN_PROCESS else workers or min(os.cpu_count() or 1, 8)
    if not batches:
        return
    results = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="4*n_jobs")(
        delayed(read_batch)(root, batch) for batch in batches
    )
    yield from track(results, f"reading the headers of {len(paths)} files, in batches of {BATCH}", len(batches))


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_REST = ("frames", "pixels", "digest", "problem")


def read_batch(root: str, paths: Sequence[bytes]) -> Batch:
    """The headers of some paths below ``root``.

    Returns:
        rows of the table ``files`` (without size and time), and of ``bases``: of the headers of a series the values of
        one are kept whole, of the others those that differ.
    """
    from medlora.scans.file import header_of

    rows: list[tuple[Any, ...]] = []
    bases: dict[str, str] = {}
    of_series: dict[Any, tuple[str, Values]] = {}
    for path in paths:
        header = header_of(os.path.join(root, os.fsdecode(path)))  # noqa: PTH118 - called for every file
        values = header.values
        rest: dict[str, Any] = {}
        for name in _REST:
            held = getattr(header, name)
            if held:
                rest[name] = held
        base = None
        if values:
            series = values.get("SeriesInstanceUID")
            base, known = of_series.get(series, ("", {}))
            if known.keys() != values.keys():
                text = _encode(values)
                base, known = hashlib.sha256(text.encode()).hexdigest()[:32], values
                of_series[series] = base, known
                bases[base] = text
            # Equal values of a batch are mostly one object; where they are two, they are merely kept twice.
            rest["values"] = {name: value for name, value in values.items() if known[name] is not value}
        rows.append(
            (
                path,
                header.kind,
                header.problem[0] if header.problem else "",
                *["\\".join(map(str, value)) if value.__class__ is list else value for value in map(values.get, _HELD)],
                base,
                _encode(rest),
            )
        )
    return rows, bases


def _series(database: sqlite3.Connection) -> pd.DataFrame:
    shown = ", ".join(f'"{name}"' for name in SHOWN)
    # Of bare columns SQLite takes the values from the row that has the minimum
    found = pd.read_sql_query(
        f"SELECT series, study, patient, kind, COUNT(*) AS files, SUM(size) AS bytes, MIN(path) AS first, {shown} "  # noqa: S608
        "FROM files WHERE problem = '' GROUP BY COALESCE(series, path) ORDER BY first",
        database,
    )
    for name in ("series", "study"):
        found[name] = [
            hashlib.sha256(uid.encode()).hexdigest()[:16] if isinstance(uid, str) else "" for uid in found[name]
        ]
    found["patient"] = pd.factorize(found["patient"])[0] + 1  # 0: not known
    return found.drop(columns="first").dropna(axis=1, how="all")
