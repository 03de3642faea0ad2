"""What is wrong with a run's messages, told from their bytes alone: flips, gaps, swaps, strangers.

A reader only says which messages don't count (`chain`). Here each is put where it belongs, the
hashes on both sides of it are compared, and what happened to it is said in words. A single flipped
bit is not guessed: it is searched for, and flipping it back gives the hash that was recorded.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from protocol.codec import Commit, decode_commit, digest
from protocol.errors import InvalidData
from protocol.events import Archived, RunCancelled, RunFailed, RunFinished
from replay.chain import Head, Messages, Stored, stands_for_archived, stranger
from replay.flips import Flip, Search
from replay.problems import Problem, difference

MAX_NAMED: Final = 200
"""Problems of one run that are told one by one; whoever has more has lost the run."""

RESTORE: Final = "restore the run from a replica, the archive or a backup"


Decode: TypeAlias = Callable[[bytes], Commit]
"""How bytes become a commit."""


class Known(NamedTuple):
    """The head that a run's log is known to have had, from a place beside the log."""

    n: int
    hash: str


class Piece:
    """A message on a run's commits, and where it belongs."""

    __slots__ = ("commit", "hash", "mended", "n", "place", "stored", "why")

    def __init__(self, place: int, stored: Stored, decode: Decode) -> None:
        self.place, self.stored = place, stored
        self.hash = digest(stored.data)
        self.commit: Commit | None = None
        self.why = ""
        """Why it is no commit at all."""
        self.n = 0
        """The place in the chain that was found for it."""
        self.mended: Commit | None = None
        """What it was before a bit flipped, if that could be found."""
        try:
            self.commit = decode(stored.data)
        except InvalidData as error:
            self.why = error.message


class Damage(NamedTuple):
    """What is wrong, and what can still be relied on."""

    problems: list[Problem]
    sound: int
    """Commits, from the first on, with which nothing is wrong."""
    pieces: dict[int, Piece]
    """The messages that stand in the chain, by the number that they have or had."""
    archived: str = ""
    """Where the commits before the first one are, if they are in an archive."""


def damage(
    run: str, messages: Messages, kept: Known | None = None, decode: Decode = decode_commit
) -> Damage:
    """All that is wrong with the commits of a run.

    Args:
        run: Its id.
        messages: What stands on its subjects.
        kept: The head that it once had, if that is known.
        decode: How bytes become a commit.
    """
    pieces = [Piece(place, stored, decode) for place, stored in enumerate(messages.commits)]
    chain = _Chain(run, pieces, kept)
    problems = [*chain.gaps, *_disorder(run, chain.slots)]
    problems += _Links(run, chain.slots, kept, decode).problems()
    problems += _tail(run, chain, kept)
    problems.sort(key=lambda each: each.commit)
    sound = min((each.commit for each in problems), default=len(chain.slots) + 1) - 1
    problems += [_leftover(run, piece, chain.slots) for piece in chain.left]
    return Damage(problems, sound, chain.slots, chain.archived)


# ------------------------------------------------------------------------------------ in its place


class _Chain:
    """Puts each message where it belongs, whatever happened to it."""

    def __init__(self, run: str, pieces: list[Piece], kept: Known | None) -> None:
        self.run, self.kept = run, kept
        self.slots: dict[int, Piece] = {}
        self.gaps: list[Problem] = []
        self._by_n: dict[int, list[Piece]] = {}
        self._by_prev: dict[str, list[Piece]] = {}
        self._unreadable = [piece for piece in pieces if piece.commit is None]
        for piece in pieces:
            if piece.commit is not None:
                self._by_prev.setdefault(piece.commit.prev, []).append(piece)
                if piece.commit.run == run:
                    self._by_n.setdefault(piece.commit.n, []).append(piece)
        self._numbers = sorted(self._by_n)
        self.archived = ""
        self._arrange(*self._first())
        self.left = [piece for piece in pieces if not piece.n]
        """What belongs nowhere."""

    def _first(self) -> tuple[int, str]:
        """The number of the first commit that has to be there, and what it follows."""
        n = next(iter(self._numbers), 1)
        for piece in self._by_n.get(n, ()):
            if piece.commit is not None and stands_for_archived(piece.commit):
                self.archived = next(
                    e.manifest for e in piece.commit.events if isinstance(e, Archived)
                )
                return n, piece.commit.prev
        return 1, ""

    def _arrange(self, n: int, prev: str) -> None:
        while True:
            piece = self._next(n, prev)
            if piece is not None:
                piece.n, self.slots[n] = n, piece
                n, prev = n + 1, piece.hash
                continue
            later = self._later(n)
            if not later or self._over(n - 1):
                return
            self._gap(n, later)
            n, prev = later, "?"

    def _later(self, n: int) -> int:
        """The next number of which a message is left; 0 for none."""
        start = bisect_right(self._numbers, n)
        return next((k for k in islice(self._numbers, start, None) if self._free(k)), 0)

    def _free(self, n: int) -> list[Piece]:
        return [piece for piece in self._by_n.get(n, ()) if not piece.n]

    def _next(self, n: int, prev: str) -> Piece | None:
        """The message that is, or was, the commit ``n``."""
        free = self._free(n)
        linked = [piece for piece in free if piece.commit and piece.commit.prev == prev]
        if linked:
            return linked[0]
        renumbered = [piece for piece in self._by_prev.get(prev, ()) if not piece.n]
        # A stale conductor's commit follows an earlier one; this one follows the last.
        if renumbered and (n == 1 or prev):
            return renumbered[0]
        if free and not self._over(n - 1):
            follow = {piece.commit.prev for piece in self._free(n + 1) if piece.commit}
            return next((piece for piece in free if piece.hash in follow), free[0])
        return self._broken(n)

    def _broken(self, n: int) -> Piece | None:
        """An unreadable message that stands where the commit ``n`` should."""
        last = self.slots[n - 1].place if n - 1 in self.slots else -1
        later = self._free(k)[0] if (k := self._later(n)) else None
        if self._over(n - 1) or (later is None and (self.kept is None or self.kept.n < n)):
            return None
        start = bisect_right(self._unreadable, last, key=lambda piece: piece.place)
        here = (piece for piece in islice(self._unreadable, start, None) if not piece.n)
        piece = next(here, None)
        return piece if piece and (later is None or piece.place < later.place) else None

    def _over(self, n: int) -> bool:
        """Whether the run has ended with the commit ``n``: whatever follows is a stranger's."""
        piece = self.slots.get(n)
        if piece is None or piece.commit is None or (self.kept and self.kept.n > n):
            return False
        ends = (RunFinished, RunFailed, RunCancelled)
        return any(isinstance(event, ends) for event in piece.commit.events)

    def _gap(self, first: int, later: int) -> None:
        count = later - first
        what = f"commit {first}" if count == 1 else f"commits {first} to {later - 1}"
        piece = self._free(later)[0]
        is_ = "is" if count == 1 else "are"
        self.gaps.append(
            Problem(
                run=self.run,
                kind="damaged",
                what="removed",
                where=what,
                commit=first,
                expected=f"{what} before commit {later}, which stands at {piece.stored.seq}",
                found="nothing there that is or was such a commit",
                likely=f"{what} {is_} removed from the store, or the broker holds {is_own(count)} "
                f"back because its own checksum fails; {RESTORE}",
            )
        )


def is_own(count: int) -> str:
    """``it`` or ``them``."""
    return "it" if count == 1 else "them"


# ----------------------------------------------------------------------------------------- in order


def _disorder(run: str, slots: dict[int, Piece]) -> list[Problem]:
    """Commits that chain, and stand in another order."""
    numbers = sorted(slots)
    ordered = sorted(slots.values(), key=lambda piece: piece.place)
    wrong = [(n, piece) for n, piece in zip(numbers, ordered, strict=True) if piece.n != n]
    if not wrong:
        return []
    names = sorted(piece.n for _, piece in wrong)
    if len(names) == 2:
        where = f"commits {names[0]} and {names[1]}"
        likely = "the two were swapped"
    else:
        where = f"{len(names)} commits, from {names[0]} to {names[-1]}"
        likely = "they were written again in another order"
    n, piece = wrong[0]
    return [
        Problem(
            run=run,
            kind="damaged",
            what="out_of_order",
            where=where,
            commit=n,
            seq=piece.stored.seq,
            expected=f"commit {n} at {piece.stored.seq}",
            found=f"commit {piece.n} there, and commit {n} at {slots[n].stored.seq}",
            likely=f"{likely}, as by a restore or a copy that didn't keep the order; {RESTORE}",
        )
    ]


# --------------------------------------------------------------------------------------- unchanged


class _Links:
    """Compares each commit with the hash that the next one, or a kept head, recorded of it."""

    def __init__(
        self, run: str, slots: dict[int, Piece], kept: Known | None, decode: Decode
    ) -> None:
        self.run, self.slots, self.kept, self.decode = run, slots, kept, decode
        self.blamed: dict[int, Problem] = {}
        self._flip_back = Search()

    def problems(self) -> list[Problem]:
        """One for each commit that isn't what was written."""
        for n in sorted(self.slots):
            self._look_at(n)
        for n in sorted(self.slots):
            if n not in self.blamed:
                self._misplaced(n)
        return [*self.blamed.values(), *self._rewritten()]

    def _rewritten(self) -> Iterable[Problem]:
        """Whether the log goes on from another commit than the one whose head is kept."""
        kept = self.kept
        if kept is None or kept.n in self.blamed:
            return
        piece, after = self.slots.get(kept.n), self.slots.get(kept.n + 1)
        there = piece.hash if piece else after.commit.prev if after and after.commit else ""
        if there and there != kept.hash:
            yield Problem(
                run=self.run,
                kind="damaged",
                what="rewritten",
                where=f"commit {kept.n}",
                commit=kept.n,
                seq=piece.stored.seq if piece else 0,
                expected=f"the hash {kept.hash}: that head of the log is kept",
                found=f"the hash {there}, which the commits after it follow",
                likely="this commit or one before it was written anew, and the log went on from "
                "there: after a backup was restored, or by somebody who has a conductor's rights; "
                f"{RESTORE}",
            )

    def _recorded(self, n: int) -> str:
        """The hash that the commit ``n`` should have; "" if nothing says."""
        after = self.slots.get(n + 1)
        if after is not None and after.commit is not None:
            return after.commit.prev
        return self.kept.hash if self.kept is not None and self.kept.n == n else ""

    def _intact(self, n: int) -> bool:
        """Whether something says that the commit ``n`` is what was written."""
        return n in self.slots and self._recorded(n) == self.slots[n].hash

    def _look_at(self, n: int) -> None:
        piece, recorded = self.slots[n], self._recorded(n)
        if piece.hash == recorded:
            return
        before = self.slots.get(n - 1)
        if recorded and (mended := self._flip_back(piece.stored.data, recorded)):
            self._flipped(n, recorded, mended)
        elif piece.commit is None:
            self._changed(n, recorded, "unreadable", piece.why)
        elif recorded and (self._intact(n + 1) or n + 1 not in self.slots):
            self._changed(n, recorded, "changed", f"the hash {piece.hash}")
        elif recorded:
            self._either(n, recorded)
        elif before is not None and self._near(piece.commit.prev, before.hash):
            text = f"commit {n} says that it follows {piece.commit.prev}"
            self._changed(n, "", "changed", text)

    def _either(self, n: int, recorded: str) -> None:
        """Two neighbours don't fit, and nothing beyond says which of them is intact."""
        after = self.slots[n + 1]
        if self._recorded(n + 1) or self._near(recorded, self.slots[n].hash):
            return  # the other one is looked at next, and is to blame
        if n in self.blamed or after.commit is None:
            return
        self._changed(n, recorded, "changed", f"the hash {self.slots[n].hash}", or_next=True)

    @staticmethod
    def _near(said: str, hash_: str) -> bool:
        """Whether two hashes differ in a digit or two: no accident of two different messages."""
        if len(said) != len(hash_):
            return abs(len(said) - len(hash_)) <= 1 and bool(said)
        return 0 < sum(a != b for a, b in zip(said, hash_, strict=True)) <= 2

    def _misplaced(self, n: int) -> None:
        """A commit that nothing says is damaged, and that still doesn't count."""
        piece, before = self.slots[n], self.slots.get(n - 1)
        if piece.commit is None or (n > 1 and (before is None or before.commit is None)):
            return  # nobody knows what it would have to follow
        if n - 1 in self.blamed and before is not None and before.mended is None:
            return  # nobody knows its time and its epoch any more
        head = Head()
        if before is not None and before.commit is not None:
            whole = before.mended or before.commit
            head = Head(n - 1, piece.commit.prev, 0, whole.epoch, whole.at)
        why = stranger(self.run, piece.commit, head)
        if not why:
            return
        if self._intact(n):
            likely = (
                "the next commit follows it all the same: it was written so, by a conductor whose "
                "clock or epoch went back, which is a bug of ours: please report it"
            )
        else:
            likely = f"its bytes were changed in the store; {RESTORE}"
        self.blamed[n] = self._problem(n, "order" if self._intact(n) else "changed").build(
            expected=f"a commit {n} of this run that follows commit {n - 1}, in time and epoch",
            found=why,
            likely=likely,
        )

    # ------------------------------------------------------------------------------------- in words

    def _problem(self, n: int, what: str) -> "_Words":
        return _Words(self.run, n, self.slots[n].stored.seq, what)

    def _flipped(self, n: int, recorded: str, flip: Flip) -> None:
        piece = self.slots[n]
        try:
            piece.mended = self.decode(flip.data)
        except InvalidData:
            piece.mended = None
        found = f"the hash {piece.hash}" if piece.commit is not None else piece.why
        self.blamed[n] = self._problem(n, "flipped").build(
            expected=f"the hash {recorded}, which {self._witness(n)} recorded",
            found=found,
            likely=f"{flip.words(piece.stored.data)}{_at(piece)}: flipped back, it has the "
            f"recorded hash; bad memory or a bad disk: {RESTORE}",
        )

    def _changed(
        self, n: int, recorded: str, what: str, found: str, *, or_next: bool = False
    ) -> None:
        expected = f"the hash {recorded}, which {self._witness(n)} recorded"
        if not recorded:
            expected = f"a commit {n} that follows commit {n - 1}"
        more = f", or those of commit {n + 1}" if or_next else ""
        self.blamed[n] = self._problem(n, what).build(
            expected=expected,
            found=found,
            likely=f"its bytes were changed in the store{more}, by more than one bit or "
            f"beyond what is searched; {RESTORE}",
        )

    def _witness(self, n: int) -> str:
        after = self.slots.get(n + 1)
        if after is not None and after.commit is not None:
            return f"commit {n + 1}"
        return "the kept head"


class _Words(NamedTuple):
    run: str
    n: int
    seq: int
    what: str

    def build(self, *, expected: str, found: str, likely: str) -> Problem:
        return Problem(
            run=self.run,
            kind="damaged",
            what=self.what,  # type: ignore[arg-type]
            where=f"commit {self.n}",
            commit=self.n,
            seq=self.seq,
            expected=expected,
            found=found,
            likely=likely,
        )


def _at(piece: Piece) -> str:
    """Which field the flipped bit stands in."""
    if piece.commit is None or piece.mended is None:
        return ""
    found = difference(piece.mended, piece.commit)
    return f", in {found.path}" if found is not None and found.path else ""


# ------------------------------------------------------------------------------------- what is left


def _tail(run: str, chain: _Chain, kept: Known | None) -> Iterable[Problem]:
    """Whether the log ends before a head that it once had."""
    last = max(chain.slots, default=0)
    if kept is None or kept.n <= last:
        return
    missing = f"commit {kept.n}" if kept.n == last + 1 else f"commits {last + 1} to {kept.n}"
    yield Problem(
        run=run,
        kind="damaged",
        what="cut",
        where=missing,
        commit=last + 1,
        expected=f"a log up to commit {kept.n} ({kept.hash}): that head of it is kept",
        found=f"it ends with commit {last}" if last else "no commit of it is there",
        likely="the end of the log was cut: by a restored backup, a disk that lost what it had "
        "acknowledged, or a broker that started again after a crash and gave up its file from a "
        f"message on whose own checksum fails; {RESTORE}",
    )


def _leftover(run: str, piece: Piece, slots: dict[int, Piece]) -> Problem:
    """A message that belongs nowhere. It was set aside, and harms nothing."""
    commit, seq = piece.commit, piece.stored.seq
    what, found = "foreign", piece.why
    likely = "somebody else writes to the broker, see docs/foreign-messages.md"
    if commit is not None and commit.run != run:
        found = f"a commit of run {commit.run!r}"
    elif commit is not None:
        there = slots.get(commit.n)
        before = slots.get(commit.n - 1)
        found = f"a commit {commit.n} that follows {commit.prev or 'nothing'}"
        if there is not None and there.hash == piece.hash:
            what, likely = "duplicate", "the broker stored one append twice; it counts once"
            found = f"commit {commit.n} a second time"
        elif there is not None and commit.prev == (before.hash if before else ""):
            what = "stale_writer"
            found = f"another commit {commit.n}, of epoch {commit.epoch}"
            epoch = there.commit.epoch if there.commit is not None else 0
            likely = (
                f"a conductor that had lost the run wrote it after commit {commit.n} of epoch "
                f"{epoch} was stored; it was fenced, and its commit doesn't count"
            )
    return Problem(
        run=run,
        kind="aside",
        what=what,  # type: ignore[arg-type]
        where=f"the message at {seq} of the commits",
        seq=seq,
        expected="commits of this run, each following the one before",
        found=found,
        likely=likely,
    )
