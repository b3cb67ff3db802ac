"""False alarms and delays on real rows that are stationary because they were permuted.

The rows come inside the packages of river and NannyML (benchmarks/peers/real_streams.py names
them). Permuted singly they are independent; permuted in blocks they keep the autocorrelation that
real rows have, and nothing drifts all the same. The first part is the reference, which Remora
calibrates itself on; the rest comes tick by tick; from its middle on one feature is shifted by .3
of its standard deviation. Shares are of the ticks before that: `alarm` with a new warning or drift,
`standing` with any feature in such a state. Delays are medians in rows; in brackets where more than
a tenth of the ticks alarm anyway.

KS and PSI are rules on the same rows; Evidently, NannyML and Alibi Detect run their own code with
their defaults in environments of their own, for the first seed (Evidently on the ticks next to the
change only: it is slow).

    make peers && python benchmarks/detection_real_rows.py [--quick] [--streams a,b] [--json FILE]

Exits 1 if Remora alarms on more than .1 % of all ticks permuted singly, or 3 % permuted in blocks.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers.real_streams import SOURCES, Column, Source, as_numbers, columns_of
from benchmarks.peers.sides import MissingPeer, python_of, quiet_environment
from benchmarks.peers.tied_rules import always, ks_bonferroni, ks_plain, never, psi_above
from detectors import Monitor, State, build_reference

SHARES_MAX = {"singly": 0.001, "blocks": 0.03}
SHIFT = 0.3
EVIDENTLY_TICKS = 6
VERDICTS = Path(__file__).parent / "peers" / "verdicts.py"
#: [features, rows]
Rows = NDArray[np.float64]
#: Features that alarm, tick by tick.
Verdicts = Sequence[set[int]]
Rule = Callable[[list[Rows], Rows], set[int]]
RULES: Mapping[str, Rule] = {
    "KS .05": ks_plain,
    "KS Bonferroni": ks_bonferroni,
    "PSI > .2": psi_above,
    "always": always,
    "never": never,
}
PEERS = {"NannyML": "nannyml", "Alibi Detect": "alibi", "Evidently": "evidently"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Permuted rows: reference and live, `moved` is the feature that moves at tick `change`."""

    source: Source
    kind: str
    reference: dict[str, Column]
    live: dict[str, Column]
    numbers: NDArray[np.float64]
    moved: int
    change: int

    @property
    def ticks(self) -> int:
        """Whole ticks of the live part."""
        rows: int = self.numbers.shape[1] - self.source.reference_rows
        return rows // self.source.tick_rows

    def tick(self, number: int) -> slice:
        """Rows of a tick within the live part."""
        return slice(number * self.source.tick_rows, (number + 1) * self.source.tick_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one detector did on one stream."""

    who: str
    stream: str
    kind: str
    ticks: int
    alarms: int
    standing: int
    delay: int | None


def permuted(source: Source, columns: dict[str, Column], kind: str, seed: int) -> Stream:
    """Permute a stream, and shift one of its numbers in the second half of what is live."""
    rng = np.random.default_rng((seed, len(kind)))
    rows = len(next(iter(columns.values())))
    block = 1 if kind == "singly" else source.block_rows
    starts = rng.permutation(np.arange(rows // block) * block)
    order = (starts[:, None] + np.arange(block)).reshape(-1)
    mixed = {name: column[order] for name, column in columns.items()}
    m = source.reference_rows
    numeric = [
        i for i, c in enumerate(mixed.values()) if c.dtype != object and len(np.unique(c[:m])) > 20
    ]
    moved = numeric[seed % len(numeric)]
    name = list(mixed)[moved]
    change = (len(order) - m) // source.tick_rows // 2
    after = m + change * source.tick_rows
    spread = float(np.nanstd(mixed[name][:m]))
    mixed[name] = np.concatenate([mixed[name][:after], mixed[name][after:] + SHIFT * spread])
    return Stream(
        source=source,
        kind=kind,
        reference={key: column[:m] for key, column in mixed.items()},
        live={key: column[m:] for key, column in mixed.items()},
        numbers=as_numbers(mixed),
        moved=moved,
        change=change,
    )


def remora(stream: Stream) -> tuple[Verdicts, list[bool], list[str]]:
    """Give new alarms, whether any state stands, and what the alarms before the change said."""
    reference = build_reference(stream.reference, tick_rows=stream.source.tick_rows, ordered=True)
    monitor = Monitor(reference)
    names = list(stream.live)
    verdicts: list[set[int]] = []
    standing: set[tuple[str, str]] = set()
    stands, said = [], []
    for number in range(stream.ticks):
        rows = {name: column[stream.tick(number)] for name, column in stream.live.items()}
        found: set[int] = set()
        for reading in monitor.update(rows):
            subject = (reading.kind.value, reading.subject)
            if reading.state in (State.WARNING, State.DRIFT):
                standing.add(subject)
                # A relation between features has no number of its own.
                found.add(names.index(reading.subject) if reading.subject in names else -1)
                if number < stream.change:
                    said.append(f"tick {number} {reading.detector}: {reading.explain}")
            elif reading.state is State.OK:
                standing.discard(subject)
        verdicts.append(found)
        stands.append(bool(standing))
    return verdicts, stands, said


def by_rule(stream: Stream, rule: Rule) -> Verdicts:
    """Let a rule look at every tick."""
    m = stream.source.reference_rows
    ordered = [np.sort(row[~np.isnan(row)]) for row in stream.numbers[:, :m]]
    live = stream.numbers[:, m:]
    return [rule(ordered, live[:, stream.tick(number)]) for number in range(stream.ticks)]


def by_peer(stream: Stream, peer: str) -> Verdicts:
    """Let a peer's own code look at every tick (Evidently: at some before and after the change)."""
    m, size = stream.source.reference_rows, stream.source.tick_rows
    live = stream.numbers[:, m : m + stream.ticks * size]
    first = 0
    if peer == "evidently":
        first = max(0, stream.change - EVIDENTLY_TICKS)
        live = live[:, first * size : (stream.change + EVIDENTLY_TICKS) * size]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.npz"
        np.savez(path, reference=stream.numbers[:, :m], live=live, tick_rows=size)
        command = [str(python_of(peer)), str(VERDICTS), peer, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=quiet_environment())
    if done.returncode:
        raise RuntimeError(f"{peer}: {done.stderr[-2_000:]}")
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def figure(who: str, stream: Stream, verdicts: Verdicts, stands: Sequence[bool] = ()) -> Figure:
    """Count alarms before the change, and rows from the change to the first one after it."""
    size = stream.source.tick_rows
    before = min(stream.change, EVIDENTLY_TICKS) if who == "Evidently" else stream.change
    states = [bool(found) for found in verdicts] if not stands else list(stands)
    delays = [
        (number + 1) * size
        for number, found in enumerate(verdicts[before:])
        if stream.moved in found or -1 in found
    ]
    return Figure(
        who=who,
        stream=stream.source.name,
        kind=stream.kind,
        ticks=before,
        alarms=sum(bool(found) for found in verdicts[:before]),
        standing=sum(states[:before]),
        delay=delays[0] if delays else None,
    )


def run(stream: Stream, peers: Mapping[str, str]) -> tuple[list[Figure], list[str]]:
    """Let everybody look at one stream."""
    verdicts, stands, said = remora(stream)
    figures = [figure("Remora", stream, verdicts, stands)]
    figures += [figure(who, stream, by_rule(stream, rule)) for who, rule in RULES.items()]
    figures += [figure(who, stream, by_peer(stream, peer)) for who, peer in peers.items()]
    return figures, said


def cell(figures: Sequence[Figure]) -> str:
    """Write the share of ticks with an alarm, and the median delay."""
    ticks = sum(one.ticks for one in figures)
    share = sum(one.alarms for one in figures) / max(ticks, 1)
    delays = [float("inf") if one.delay is None else float(one.delay) for one in figures]
    delay = statistics.median_low(delays) if delays else float("inf")
    shown = "missed" if delay == float("inf") else f"{delay:,.0f}"
    return f"{share:.1%} {f'[{shown}]' if share > 0.1 else shown}"


def print_table(figures: Sequence[Figure], kind: str) -> None:
    """Print who did what on which stream."""
    everybody = list(dict.fromkeys(one.who for one in figures))
    print(f"\n  {'permuted ' + kind:<16}" + "".join(f"{who:>17}" for who in everybody))
    for stream in dict.fromkeys(one.stream for one in figures):
        cells = [
            cell([f for f in figures if (f.who, f.stream, f.kind) == (who, stream, kind)])
            for who in everybody
        ]
        print(f"  {stream:<16}" + "".join(f"{text:>17}" for text in cells))


def main() -> int:
    """Run the streams and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [source.name for source in SOURCES]
    parser.add_argument("--streams", default=",".join(names))
    parser.add_argument("--peers", default=",".join(PEERS.values()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, and no peer's own code")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    peers = {} if asked.quick else {w: p for w, p in PEERS.items() if p in asked.peers.split(",")}
    figures: list[Figure] = []
    try:
        for source in [one for one in SOURCES if one.name in asked.streams.split(",")]:
            columns = columns_of(source)
            for kind in SHARES_MAX:
                for seed in range(1 if asked.quick else asked.seeds):
                    own = {} if seed else peers  # their code is slow: one seed says enough
                    found, said = run(permuted(source, columns, kind, seed), own)
                    figures += found
                    for line in said:
                        print(f"  {source.name}, {kind}, seed {seed}: {line}", flush=True)
    except MissingPeer as error:
        print(f"benchmarks/detection_real_rows.py: {error}", file=sys.stderr)
        return 2
    met, totals = True, {}
    for kind, most in SHARES_MAX.items():
        print_table(figures, kind)
        mine = [one for one in figures if one.who == "Remora" and one.kind == kind]
        ticks = max(sum(one.ticks for one in mine), 1)
        share, standing = (
            sum(getattr(one, name) for one in mine) / ticks for name in ("alarms", "standing")
        )
        totals[kind] = {"ticks": ticks, "alarm": share, "standing": standing, "most": most}
        met &= share <= most
        print(
            f"  Remora alarms on {share:.3%} of {ticks:,} ticks (at most {most:.1%}); "
            f"a state stands on {standing:.3%}  {'ok' if share <= most else 'MISSED'}"
        )
    if asked.json is not None:
        report = {"met": met, "totals": totals, "figures": [asdict(one) for one in figures]}
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
