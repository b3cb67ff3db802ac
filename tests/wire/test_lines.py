"""Lines of a growing file: how the bytes were cut does not matter, and long lines cost nothing."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.wire.lines import Line, Lines

CONTENT = st.binary(max_size=200).map(lambda data: data.replace(b"\x00", b"\n"))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def plain(data: bytes, line_bytes_max: int) -> tuple[list[Line], int]:
    """The same by the book: split, measure, drop."""
    found, at, too_long = [], 0, 0
    *whole, rest = data.split(b"\n")
    for line in whole:
        at += len(line) + 1
        if len(line) > line_bytes_max:
            too_long += 1
        elif line.removesuffix(b"\r"):
            found.append(Line(data=line.removesuffix(b"\r"), end=at))
    return found, too_long + (len(rest) > line_bytes_max)


@given(CONTENT, st.lists(st.integers(0, 200)), st.integers(1, 60))
def test_how_the_bytes_were_cut_does_not_matter(data: bytes, cuts: list[int], most: int) -> None:
    lines = Lines(line_bytes_max=most)
    found = [line for part in cut(data, cuts) for line in lines.feed(part)]
    assert (found, lines.too_long) == plain(data, most)
    assert lines.read == len(data)
    assert lines.held_bytes <= most


@given(CONTENT, st.integers(0, 200))
def test_reading_on_from_the_end_of_a_line_gives_the_lines_after_it(data: bytes, n: int) -> None:
    whole = Lines().feed(data)
    done = whole[: n % (len(whole) + 1)]
    at = done[-1].end if done else 0
    assert Lines(offset=at).feed(data[at:]) == whole[len(done) :]


def test_half_a_line_waits_for_its_end() -> None:
    lines = Lines()
    assert lines.feed(b'{"a": 1') == []
    assert lines.ended == 0
    assert lines.feed(b"}\n") == [Line(data=b'{"a": 1}', end=9)]
    assert lines.ended == 9


def test_a_line_that_is_too_long_is_counted_once_and_skipped_to_its_end() -> None:
    lines = Lines(line_bytes_max=4)
    found = [line for _ in range(1_000) for line in lines.feed(b"xxxx")]
    assert (found, lines.held_bytes) == ([], 0)
    assert lines.feed(b"x\nok\n") == [Line(data=b"ok", end=4_005)]
    assert lines.too_long == 1


def test_the_end_of_a_skipped_line_moves_what_has_ended() -> None:
    lines = Lines(line_bytes_max=2)
    assert lines.feed(b"long\n\n") == []
    assert lines.ended == 6


def test_what_begins_in_the_middle_of_a_line_is_passed_over_and_not_counted() -> None:
    lines = Lines(offset=3, skip_first=True)
    assert lines.feed(b"lf\nwhole\n") == [Line(data=b"whole", end=12)]
    assert lines.too_long == 0
