"""docs/python.md does what it says: its blocks run in order and print what stands there."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.S | re.M)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(page: str) -> tuple[int, int]:
    """How many examples failed, and how many there are."""
    source = "\n".join(BLOCK.findall(page))
    test = doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)
    found = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test)
    return found.failed, found.attempted


def test_every_example_prints_what_the_page_says() -> None:
    failed, attempted = run(PAGE.read_text(encoding="utf-8"))
    assert attempted > 30
    assert failed == 0


def test_an_example_that_lies_is_found() -> None:
    page = PAGE.read_text(encoding="utf-8")
    failed, _ = run(page.replace("('drift', 'age')", "('drift', 'city')", 1))
    assert failed == 1


def test_no_block_is_left_out() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("```") == 2 * len(BLOCK.findall(page))


def test_every_argument_that_the_page_names_exists() -> None:
    from inspect import signature

    from detectors import build_reference

    [table] = re.findall(r"\| argument of `build_reference`.*?\n\n", PAGE.read_text("utf-8"), re.S)
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) >= 10
    assert named <= set(signature(build_reference).parameters)
