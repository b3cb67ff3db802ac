"""Files that grow, are rotated, cut off and begun anew: each line is given once, none is missed.

A model of the truth runs beside the real directory: what was written, and what was truncated
before anybody could have read it.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.sources.checkpoint import Checkpoint, Mark
from agent.sources.tail_files import Files


class Directory:
    """A directory of logs, their follower, and what it gave."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.directory = directory
        self.log = directory / "app.log"
        self.taken: list[str] = []
        self.dropped: Counter[str] = Counter()
        self._settings: dict[str, object] = {"start": "beginning", **changes}
        self.now = 0.0
        self.files = self.begin()

    def begin(self) -> Files:
        given = self._settings
        return Files(
            str(self.directory / str(given.get("pattern", "app.log"))),
            checkpoint=self.directory / "checkpoint",
            start=str(given["start"]),
            rotated_s=10.0,
            line_bytes_max=1_000,
            files_max=int(str(given.get("files_max", 50))),
            dropped=self.dropped,
        )

    def write(self, text: str, *, name: str = "app.log") -> None:
        with (self.directory / name).open("a") as file:
            file.write(text)

    def read(self, *, lines_max: int = 1 << 60) -> None:
        """Look, and take what is new; stops as a kill would after so many lines."""
        self.files.discover(self.now)
        busy = True
        while busy:
            busy = False
            for follower in self.files.followers():
                before = follower.at
                for line in self.files.read(follower):
                    if lines_max <= 0:
                        return
                    self.taken.append(line.data.decode())
                    self.files.taken(follower, line.end)
                    lines_max -= 1
                if follower.at == before:
                    self.files.rested(follower, self.now)
                else:
                    follower.changed_at = self.now
                    self.files.taken(follower, follower.ended)
                    busy = True

    def killed(self) -> None:
        """Nothing is said to the old one, as by kill -9; a new one begins."""
        for follower in self.files.followers():
            follower.close()
        self.files = self.begin()


@pytest.fixture
def logs(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_lines_are_given_once_and_half_a_line_waits(logs: Directory) -> None:
    logs.write("one\ntw")
    logs.read()
    logs.write("o\n")
    logs.read()
    logs.read()
    assert logs.taken == ["one", "two"]


def test_a_file_that_was_moved_away_is_read_to_its_end_before_the_new_one(
    logs: Directory,
) -> None:
    logs.write("1\n")
    logs.read()
    logs.write("2\n")
    logs.log.rename(logs.directory / "app.log.1")
    logs.write("3\n", name="app.log.1")  # the writer has not noticed yet
    logs.write("4\n")
    logs.read()
    assert logs.taken == ["1", "2", "3", "4"]
    logs.write("5\n", name="app.log.1")
    logs.read()
    assert logs.taken[-1] == "5"


def test_a_log_that_was_begun_anew_is_known_before_a_line_of_it_is_taken(logs: Directory) -> None:
    logs.write("line 1\n")
    logs.read()
    os.truncate(logs.log, 0)
    logs.write("line 2\n")
    logs.read(lines_max=0)
    logs.killed()
    logs.log.rename(logs.directory / "app.log.1")
    logs.read()
    assert logs.taken == ["line 1", "line 2"]


def test_a_file_that_was_deleted_is_read_to_its_end(logs: Directory) -> None:
    logs.write("1\n")
    logs.read()
    logs.write("2\n3")
    logs.log.unlink()
    logs.read()
    logs.now = 60.0
    logs.read()
    assert logs.taken == ["1", "2"]
    assert logs.dropped["line_unfinished"] == 1
    assert not logs.files.followers()
    assert not Checkpoint(logs.directory / "checkpoint").marks


def test_a_file_that_was_cut_off_begins_anew(logs: Directory) -> None:
    logs.write("1\n2\n")
    logs.read()
    os.truncate(logs.log, 0)
    logs.write("3\n")
    logs.read()
    assert logs.taken == ["1", "2", "3"]
    assert logs.dropped["file_begun_anew"] == 1


def test_a_file_that_was_cut_off_and_grew_beyond_is_known_by_its_first_bytes(
    logs: Directory,
) -> None:
    logs.write("1\n2\n")
    logs.read()
    os.truncate(logs.log, 0)
    logs.write("3\n4\n5\n")
    logs.read()
    assert logs.taken == ["1", "2", "3", "4", "5"]


def test_after_a_kill_the_next_one_begins_where_lines_were_taken(logs: Directory) -> None:
    logs.write("".join(f"{n}\n" for n in range(100)))
    for count in (1, 30, 0, 69):
        logs.read(lines_max=count)
        logs.killed()
    logs.read()
    assert logs.taken == [str(n) for n in range(100)]


def test_a_file_that_was_rotated_while_nobody_looked_is_found_by_its_inode(
    logs: Directory,
) -> None:
    logs.write("1\n2\n3\n")
    logs.read(lines_max=1)
    logs.log.rename(logs.directory / "app.log.1")
    logs.write("4\n")
    logs.killed()
    logs.read()
    assert sorted(logs.taken) == ["1", "2", "3", "4"]


def test_an_inode_that_another_file_uses_begins_at_its_start(logs: Directory) -> None:
    logs.write("1\n2\n")
    logs.read()
    logs.killed()
    # The same inode, and other bytes: what an inode used again looks like.
    with logs.log.open("r+") as file:
        file.write("7\n8\n9\n")
    logs.read()
    assert logs.taken == ["1", "2", "7", "8", "9"]


def test_start_at_the_end_passes_over_what_was_there_and_no_later_file(tmp_path: Path) -> None:
    logs = Directory(tmp_path, start="end", pattern="*.log")
    logs.write("old\nhalf")
    logs.read()
    logs.write(" a line\nnew\n")
    logs.write("other\n", name="b.log")
    logs.read()
    logs.killed()
    logs.read()
    assert sorted(logs.taken) == ["new", "other"]


def test_packed_files_pipes_and_directories_are_passed_over(tmp_path: Path) -> None:
    logs = Directory(tmp_path, pattern="[!c]*")
    logs.write("packed\n", name="app.log.1.gz")
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    logs.write("1\n")
    logs.read()
    assert logs.taken == ["1"]


def test_of_too_many_files_the_newest_are_followed(tmp_path: Path) -> None:
    logs = Directory(tmp_path, pattern="*.log", files_max=5)
    for n in range(20):
        logs.write(f"{n}\n", name=f"{n:02}.log")
        os.utime(tmp_path / f"{n:02}.log", (n, n))
    logs.read()
    assert sorted(map(int, logs.taken)) == [15, 16, 17, 18, 19]
    assert logs.dropped["too_many_files"] == 15


def test_more_files_than_may_be_open_are_all_read(tmp_path: Path) -> None:
    logs = Directory(tmp_path, pattern="*.log", files_max=500)
    for n in range(300):
        logs.write(f"{n}\n", name=f"{n}.log")
    for _ in range(20):
        logs.now += 20.0
        logs.read()
    assert sorted(map(int, logs.taken)) == list(range(300))


def test_a_line_that_is_too_long_is_counted_and_not_read_again(logs: Directory) -> None:
    logs.write("x" * 5_000 + "\nok\n" + "y" * 5_000 + "\n")
    logs.read()
    logs.killed()
    logs.read()
    assert logs.taken == ["ok"]
    assert logs.dropped["line_too_long"] == 2


def test_a_checkpoint_that_makes_no_sense_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"something else")
    checkpoint = Checkpoint(path)
    assert checkpoint.fresh
    assert not checkpoint.marks
    assert (tmp_path / "checkpoint.unusable").exists()


def test_a_torn_record_counts_as_absent_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    marks = [
        Mark(device=1, inode=n, offset=n * 10, prefix_bytes=4, digest=bytes(16)) for n in range(3)
    ]
    for mark in marks:
        checkpoint.put(mark)
    checkpoint.close()
    with path.open("r+b") as file:
        file.seek(2 * 64 + 20)
        file.write(b"\xff")
    again = Checkpoint(path)
    assert set(again.marks.values()) == {marks[0], marks[2]}
    again.forget((1, 0))
    again.put(marks[1])
    again.close()
    assert set(Checkpoint(path).marks.values()) == {marks[1], marks[2]}
    assert path.stat().st_size == 4 * 64


class Rotation(RuleBasedStateMachine):
    """Anything may happen between two looks; what is lost is only what nobody could have read."""

    @initialize(directory=st.uuids())
    def begin(self, directory: object) -> None:
        self._home = tempfile.TemporaryDirectory()
        self.logs = Directory(Path(self._home.name))
        self.written: list[str] = []  # lines that must come, each once
        self.unread: list[str] = []  # in the present file since the last look
        self.half = ""
        self.rotations = 0
        self.next = 0
        self.seen = False  # the present file

    @rule(count=st.integers(1, 5), half=st.booleans())
    def add(self, count: int, half: bool) -> None:
        self.seen = self.seen and self.logs.log.exists()
        text = self.half
        for _ in range(count):
            self.next += 1
            line = f"line {self.next} of them"
            self.unread.append(line)
            text += line + "\n"
        kept_back = 4 if half else 0
        self.logs.write(text[: len(text) - kept_back])
        self.half = text[len(text) - kept_back :]

    @rule()
    def look(self) -> None:
        self.logs.read()
        self.seen = True
        self._settle()

    def _settle(self) -> None:
        if self.half:
            last = self.unread.pop()
            self.written += self.unread
            self.unread = [last]
        else:
            self.written += self.unread
            self.unread = []

    @rule()
    def rotate(self) -> None:
        if not self.logs.log.exists() or self.half:
            return
        if not self.seen:
            self.look()  # a file that comes and goes between two looks is never seen
        self.rotations += 1
        self.logs.log.rename(self.logs.directory / f"app.log.{self.rotations}")

    @rule()
    def cut(self) -> None:
        """copytruncate, right after a look: what was not read by then is the writer's loss."""
        if not self.logs.log.exists() or self.half:
            return
        self.look()
        os.truncate(self.logs.log, 0)

    @rule(count=st.integers(0, 3))
    def kill(self, count: int) -> None:
        self.logs.read(lines_max=count)
        # An empty file has no first bytes by which it would be known under another name.
        self.seen = self.logs.log.exists() and self.logs.log.stat().st_size > 0
        self.logs.killed()

    @invariant()
    def nothing_is_doubled(self) -> None:
        taken = Counter(getattr(self, "logs", None) and self.logs.taken)
        assert not [line for line, count in taken.items() if count > 1]

    def teardown(self) -> None:
        if not hasattr(self, "logs"):
            return
        try:
            if self.half:
                self.logs.write(self.half)
            self.logs.read()
            assert sorted(self.logs.taken) == sorted(self.written + self.unread)
        finally:
            self.logs.files.close()
            self._home.cleanup()


TestRotation = Rotation.TestCase
TestRotation.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
