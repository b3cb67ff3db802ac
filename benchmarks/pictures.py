"""The pictures and the measured tables of docs/detection.md, made again.

Pictures are simulated by the very detectors that ship (benchmarks/page/scenes.py; the month takes
some minutes, the others seconds). Tables come from what the benchmarks of detection left in
build/bench with --json: each stands in the page between `<!-- table: NAME -->` and `<!-- end -->`.
A benchmark that was not run leaves its table as it is.

    python benchmarks/pictures.py [--only NAME]... [--tables] [--bench DIR]

With --tables nothing is drawn. Exits 1 if a file of the benchmarks cannot be read as a table.
"""

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.page.scenes import SCENES
from benchmarks.page.tables import TABLES, fill

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "detection.md"
PICTURES = ROOT / "docs" / "detection"


def draw(names: list[str]) -> None:
    """Draw these scenes."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in names:
        started = time.process_time()
        print(f"{name}:", flush=True)
        text = SCENES[name]()
        (PICTURES / f"{name}.svg").write_text(text, encoding="utf-8")
        print(f"  {len(text) / 1_000:.0f} kB, {time.process_time() - started:.0f} s of CPU")


def tables(bench: Path) -> int:
    """Fill the page's tables from the files that are there."""
    page = PAGE.read_text(encoding="utf-8")
    page, notes, good = fill(page, bench)
    PAGE.write_text(page, encoding="utf-8")
    for note in notes:
        print(note)
    return 0 if good else 1


def main() -> int:
    """Draw, or fill in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(SCENES), help="may be repeated")
    parser.add_argument("--tables", action="store_true", help=f"fill in: {', '.join(TABLES)}")
    parser.add_argument("--bench", type=Path, default=ROOT / "build" / "bench")
    asked = parser.parse_args()
    if asked.tables:
        return tables(asked.bench)
    draw(asked.only or list(SCENES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
