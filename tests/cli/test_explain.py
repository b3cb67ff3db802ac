"""`remora explain` as people run it: real files, a real classifier in a job of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

pytest.importorskip("sklearn")

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Refusal: TypeAlias = Callable[..., str]
ROOT = Path(__file__).resolve().parent.parent.parent


def rows(seed: int, *, count: int = 700, shift: float = 0.0, towns: str = "ab") -> list[Any]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 3))
    values[:, 1] += shift
    return [
        {"id": seed * 10_000 + i, "age": row[0], "income": row[1], "town": rng.choice([*towns])}
        | ({} if i % 9 else {"debt": row[2]})
        for i, row in enumerate(values.tolist())
    ]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write(tmp_path / "reference.jsonl", rows(1))


def explained(remora: Remora, *arguments: str | Path) -> dict[str, Any]:
    done = remora("explain", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_names_the_feature_that_moved(remora: Remora, reference: Path, tmp_path: Path) -> None:
    current = write(tmp_path / "current.jsonl", rows(2, shift=1.0))
    answer = explained(remora, current, "--against", reference, "--ignore", "id")
    assert answer["differs"]
    assert 0.6 < answer["auc_low"] < answer["auc"] < answer["auc_high"] < 0.9
    assert answer["features"][0][0] == "income"
    assert "mostly by income" in answer["explain"]
    assert answer["left_out"] == {"id": "asked for by --ignore"}


@pytest.mark.slow
def test_rows_of_the_same_kind_cannot_be_told_apart(
    remora: Remora, reference: Path, tmp_path: Path
) -> None:
    current = write(tmp_path / "current.jsonl", rows(3))
    answer = explained(remora, current, "--against", reference, "--ignore", "id")
    assert answer["auc_low"] < 0.5 < answer["auc_high"]
    assert answer["explain"].startswith("a classifier cannot tell")


@pytest.mark.slow
def test_a_category_that_was_never_there_is_seen_and_a_table_is_for_people(
    remora: Remora, reference: Path, tmp_path: Path
) -> None:
    current = write(tmp_path / "current.jsonl", rows(4, towns="abc"))
    done = remora("explain", current, "--against", reference, "--ignore", "id")
    assert done.returncode == 0, done.stderr
    assert "mostly by town" in done.stdout
    assert "AUC lost when permuted" in done.stdout


@pytest.mark.slow
def test_a_number_of_rows_is_suspected(remora: Remora, reference: Path, tmp_path: Path) -> None:
    current = write(tmp_path / "current.jsonl", rows(5))
    answer = explained(remora, current, "--against", reference)
    assert "id alone is enough" in answer["explain"]


@pytest.mark.slow
def test_large_files_are_drawn_from_evenly(remora: Remora, reference: Path, tmp_path: Path) -> None:
    lines = ["age,income,town"]
    lines += [f"{i % 7},{i},a" for i in range(31_000)]
    current = tmp_path / "current.csv"
    current.write_text("\n".join(lines) + "\n", encoding="utf-8")
    answer = explained(remora, current, "--against", reference, "--rows", "300")
    assert answer["rows_current"] == answer["rows_reference"] == 300
    assert answer["left_out"] == {
        "id": "not among the current rows",
        "debt": "not among the current rows",
    }


@pytest.mark.slow
def test_what_cannot_be_asked_is_one_line(
    refusal: Refusal, reference: Path, tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", rows(6, count=9))
    other = write(tmp_path / "other.jsonl", [{"x": 1}] * 60)
    against = ("--against", reference)
    assert "at least 50 rows" in refusal("explain", few, *against)
    assert "no column in common" in refusal("explain", other, *against)
    assert "did you mean 'income'?" in refusal("explain", few, *against, "--ignore", "incom")
    assert "absent.csv: cannot be read" in refusal("explain", "absent.csv", *against)
    assert "--time-limit" in refusal("explain", few, *against, "--time-limit", "0")
    line = refusal("explain", reference, *against, "--time-limit", "0.01")
    assert "no answer within 0.01 s" in line


def test_without_the_extra_it_says_which_to_install(reference: Path) -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None; from agent.cli.main import run_command;"
        f"sys.exit(run_command(['explain', {str(reference)!r}, '--against', {str(reference)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "remora: remora explain needs the extra: pip install 'remora[explain]'\n"
