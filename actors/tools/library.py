"""Full-text search over a folder of documents, by the SQLite that Python brings (FTS5, BM25).

The index is in memory and built when it is first asked, since a folder small enough for that is
what a pool is shipped with, and there is then no index file to go stale within a process.
"""

import functools
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SUFFIXES: Final = frozenset({".md", ".rst", ".txt"})
"""Files that are read as text."""

MAX_FILES: Final = 5_000
"""Files of one folder. An index of more belongs in a search server."""

MAX_FILE_BYTES: Final = 2_000_000
"""Bytes of one file. A larger one is data, and no document that a person wrote."""

MAX_PASSAGE_CHARS: Final = 1_200
"""Characters of one passage. A longer paragraph is cut in pieces, so that a result stays small."""

MAX_QUERY_WORDS: Final = 32
"""Words of a query that are looked for."""

MAX_CACHED_FOLDERS: Final = 4
"""Folders whose index one process keeps."""

TITLE_WEIGHT: Final = 4.0
"""How much more a word in a document's title or a heading says of a passage than one in its
text."""

_STOP_WORDS: Final = """
    a about an and are as at be been by can do does did for from had has have how i in into is it
    its of on or s so t than that the their them there these they this to was we were what when
    where which who whom whose why will with would you your
"""

STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
"""Words that every passage has. Left out, unless a query has no others."""


class LibraryError(ValueError):
    """The folder can't be searched; the text says why."""


class Passage(NamedTuple):
    """A paragraph that matches."""

    document: str
    """Path of the file below the folder."""
    title: str
    text: str
    score: float
    """BM25, higher is better; comparable only within one result."""


class Library:
    """One indexed folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE passages USING fts5(document UNINDEXED, title, heading, text, "
            "tokenize='porter unicode61 remove_diacritics 2')"
        )
        self.documents = 0
        for path in _files(folder):
            self.documents += 1
            name = path.relative_to(folder).as_posix()
            rows = _passages(name, path.read_text(encoding="utf-8", errors="replace"))
            self._db.executemany("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
        if not self.documents:
            raise LibraryError(
                f"The folder {folder} has no documents ({', '.join(sorted(SUFFIXES))})."
            )

    def search(self, query: str, limit: int) -> list[Passage]:
        """The ``limit`` best passages, best first; none if no word of the query is in any."""
        words = list(dict.fromkeys(re.findall(r"\w+", query.casefold())))[:MAX_QUERY_WORDS]
        words = [word for word in words if word not in STOP_WORDS] or words
        if not words:
            raise LibraryError("The query has no word. Give a few words to look for.")
        match = " OR ".join(f'"{word}"' for word in words)
        ranking = f"bm25(passages, 0, {TITLE_WEIGHT}, {TITLE_WEIGHT}, 1.0)"
        with self._lock:
            rows = self._db.execute(
                f"SELECT document, title, text, {ranking} AS rank FROM passages "
                "WHERE passages MATCH ? ORDER BY rank, document, rowid LIMIT ?",
                (match, limit),
            ).fetchall()
        return [Passage(name, title, text, round(-rank, 3)) for name, title, text, rank in rows]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LibraryError(f"There is no folder {folder}. Name an existing folder of documents.")
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.casefold() not in SUFFIXES or not path.is_file():
            continue
        if path.stat().st_size > MAX_FILE_BYTES:
            continue
        found.append(path)
        if len(found) > MAX_FILES:
            raise LibraryError(f"The folder {folder} has more than {MAX_FILES} documents.")
    return found


def _passages(name: str, text: str) -> Iterator[tuple[str, str, str, str]]:
    """(document, title, heading, text) of each paragraph; a heading goes with what is below it."""
    title = heading = ""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip().splitlines()
        while lines and lines[0].startswith("#"):
            heading = lines.pop(0).lstrip("#").strip()
            title = title or heading
        body = " ".join(" ".join(lines).split())
        for start in range(0, len(body), MAX_PASSAGE_CHARS):
            yield name, title or Path(name).stem, heading, body[start : start + MAX_PASSAGE_CHARS]


@functools.lru_cache(maxsize=MAX_CACHED_FOLDERS)
def library(folder: Path) -> Library:
    """The index of ``folder``, built at first use and kept. Raises `LibraryError`."""
    return Library(folder)
