"""From rows to a reference, in constant memory, whatever the number of rows.

The first rows are held until there are enough to choose bins and what is derived. From then on
every row is counted in those bins, exactly, and forgotten; a quantile sketch per feature watches
whether the bins still fit. Where the data moved so far that they do not, bins and counts are taken
from the sketch and the profile says so (`counts_exact`). Counts are kept per block of successive
rows: that is all the self-calibration needs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from detectors.data_quality.duplicates import CopyCounter
from detectors.reference import (
    FeatureKind,
    FeatureProfile,
    ProfileError,
    Reference,
    Segments,
    Task,
)
from detectors.references.baseline_rows import BaselineRows, guess_task
from detectors.references.bin_means import BinMeansBuilder
from detectors.references.calibration import detectable_shift, significant
from detectors.references.counted_rows import CountedRows
from detectors.references.feature_rows import FeatureRows, type_of
from detectors.references.profiles import (
    allowing_for_luck,
    like_profile,
    opened,
    profile_of,
    without_names,
)
from detectors.references.roles import Roles
from detectors.references.seasonality import PARTS, Season, with_range
from detectors.references.segment_rows import SegmentRows, final_places, most_frequent
from detectors.relations.derivation import Derivation
from detectors.rows.bins import BINS, MISSING, OUTSIDE, Bins, NumericBins
from detectors.rows.column_kinds import KINDS, PLAIN_KINDS, column_kinds
from detectors.rows.columns import Column, Table, as_table, category_keys, numbers

HELD_ROWS_MAX: Final = 16_384
HELD_VALUES_MAX: Final = 4_194_304
HELD_ROWS_MIN: Final = 512
#: A season must make the smallest visible shift smaller by this, or it is not worth its edges.
SEASON_GAIN: Final = 0.9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Rows to count: the columns that have a profile, and what is only carried along."""

    table: Table
    times: Floats | None
    segments: Column | None
    score: Floats | None  # what the model said of each row, and how wrong it was
    loss: Floats | None


class ReferenceBuilder:
    """Builds a reference from rows given in chunks, in their order in time.

    `kinds` fixes the kind of some columns by name (else guessed from the first rows): numeric,
    categorical, boolean, text or vector; `tick_rows` is the number of rows per tick in production,
    the scale of the self-calibration, which `ordered=False` leaves out. `prediction`, `score` and
    `label` name the columns that the model said and that came true, `segment` the one that rows are
    also counted by, `ignored` those that are no features. `sensitive` features never have their
    categories named; `learnt` marks a reference taken from live traffic, which nobody has accepted
    yet; `derive=False` leaves out what is derived from several columns, text and vectors. `seasons`
    are those of a `SeasonFitter` that has seen the same rows: `update` then needs times. `like`
    gives the layout (kinds, bins, derivation, segments) of another reference, so that counts of
    parts add exactly. Raises ProfileError for an unknown kind, senseless `tick_rows`, and a
    `segment` that is sensitive: segments are named by their values.
    """

    def __init__(
        self,
        *,
        kinds: Mapping[str, str] | None = None,
        tick_rows: int = 1_000,
        ordered: bool = True,
        prediction: str | None = None,
        score: str | None = None,
        label: str | None = None,
        segment: str | None = None,
        ignored: Collection[str] = (),
        sensitive: Collection[str] = (),
        task: Task | None = None,
        learnt: bool = False,
        derive: bool = True,
        seasons: Mapping[str, tuple[Season, ...]] | None = None,
        like: Reference | None = None,
    ) -> None:
        for name, kind in (kinds or {}).items():
            if kind not in KINDS:
                raise ProfileError(f"feature {name!r}: kind {kind!r} is none of {', '.join(KINDS)}")
        if tick_rows < 1:
            raise ProfileError(f"tick_rows must be at least 1, not {tick_rows}")
        if segment is not None and segment in sensitive:
            raise ProfileError(
                f"segment {segment!r} is sensitive: segments are named by their values"
            )
        self._roles = Roles(
            prediction=prediction,
            score=score,
            label=label,
            segment=segment,
            ignored=frozenset(ignored),
        )
        self._kinds = dict(kinds or {})
        self._tick_rows, self._ordered, self._task = tick_rows, ordered, task
        self._sensitive, self._learnt, self._derive = frozenset(sensitive), learnt, derive
        self._seasons, self._like = dict(seasons or {}), like
        self._like_profiles: dict[str, FeatureProfile] = {}
        if like is not None:
            self._task = task or like.task
        self._held: list[_Chunk] = []
        self._held_rows = 0
        self._columns: tuple[str, ...] = ()
        self._features: dict[str, FeatureRows] = {}
        self._derivation: Derivation | None = None
        self._counted = CountedRows([], tick_rows=1)
        self._seasonal: dict[int, CountedRows] = {}
        self._segments: SegmentRows | None = None
        self._means = BinMeansBuilder([])
        self._opened = False
        self._labelled: BaselineRows | None = None
        self._copies = CopyCounter()
        self.rows = 0
        self.malformed: dict[str, str] = {}  # columns that were left out of a chunk, and why

    def update(self, columns: Any, *, errors: Any = None, times: Floats | None = None) -> None:
        """Add rows; `errors` says of each labelled row whether the model was wrong (NaN: no label),
        where the columns do not; `times` are Unix seconds of each row, for seasons.

        Raises TypeError if `columns` is no mapping and no table, ValueError for times of another
        length; no column's content raises.
        """
        table = as_table(columns)
        if times is not None and len(times) != table.rows:
            raise ValueError(f"{len(times)} times for {table.rows} rows")
        self.malformed.update(table.malformed)
        self._take_labels(table, errors)
        segment = self._roles.segment
        score, loss = self._roles.score_and_loss(table, self._task)
        chunk = _Chunk(
            table=self._roles.watched(table, self._task),
            times=times,
            segments=None if segment is None else table.columns.get(segment),
            score=score,
            loss=loss,
        )
        if not table.rows:
            if not self._opened:
                self._held.append(chunk)  # rows or not, these are the columns
            return
        self.rows += table.rows
        if self._opened:
            self._add(chunk)
            return
        self._held.append(chunk)
        self._held_rows += table.rows
        width = max(len(table.columns) + sum(v.shape[1] for v in table.vectors.values()), 1)
        if self._held_rows >= min(HELD_ROWS_MAX, max(HELD_ROWS_MIN, HELD_VALUES_MAX // width)):
            self._open()

    def finish(self) -> Reference:
        """Give the reference of all rows so far. More rows may follow, and another reference."""
        if not self._opened:
            self._open()
        totals = self._counted.total()
        profiles = {name: self._profile(name, totals) for name in self._features}
        roles = self._roles
        taken = {name: profiles.pop(name) for name in roles.outputs if name in profiles}
        label = taken.get(roles.label or "")
        if label is not None:  # a row without a label is no label that is missing
            counts = (*label.counts[:MISSING], 0.0, *label.counts[MISSING + 1 :])
            taken[label.name] = replace(label, counts=counts)
        projected = () if self._derivation is None else self._derivation.projections
        projections = tuple(profiles.pop(name) for name in projected if name in profiles)
        baseline = None if self._labelled is None else self._labelled.baseline()
        return Reference(
            features=tuple(profiles.values()),
            prediction=taken.get(roles.output or ""),
            score=taken.get(roles.scored or ""),
            label=taken.get(roles.label or ""),
            projections=projections,
            derivation=self._derivation,
            columns=self._columns,
            segments=self._finished_segments(profiles),
            means=self._means.finish(self._moved(profiles)),
            rows=self.rows,
            tick_rows=self._tick_rows,
            ordered=self._ordered,
            task=self._task,
            baseline=baseline,
            quality={name: significant(value) for name, value in self._copies.facts().items()},
            learnt=self._learnt,
            accepted=not self._learnt,
        )

    def _take_labels(self, table: Table, errors: Any) -> None:
        truth = table.columns.get(self._roles.label or "")
        if truth is not None and table.rows and self._task is None:
            self._task = guess_task(truth, scored=self._roles.score is not None)
        if self._labelled is None and (errors is not None or truth is not None):
            self._labelled = BaselineRows(
                self._task or "classification", tick_rows=self._tick_rows, ordered=self._ordered
            )
        if self._labelled is None:
            return
        if errors is not None:
            self._labelled.add_errors(errors)
        said = self._roles.said(table)
        if truth is not None and said is not None:
            scores = self._roles.scores(table)
            self._labelled.add(said, truth, scores, count_errors=errors is None)

    def _open(self) -> None:
        """Choose kinds, derived columns and bins from the rows held, then count those rows."""
        held, self._held = self._held, []
        if self._like is not None:
            self._open_like(self._like)
        else:
            self._choose_columns([chunk.table for chunk in held])
        plain = [self._plain(chunk) for chunk in held]
        for columns in plain:
            self._remember(columns)
        self._choose_bins(held)
        self._opened = True
        for chunk, columns in zip(held, plain, strict=True):
            self._count(chunk, columns)

    def _open_like(self, like: Reference) -> None:
        self._derivation, self._columns = like.derivation, like.columns
        self._like_profiles = {p.name: p for p in like.profiles()}
        self._features = {p.name: FeatureRows(p.kind, p.type) for p in like.profiles()}
        self._sensitive |= {p.name for p in like.profiles() if p.sensitive}

    def _choose_columns(self, tables: list[Table]) -> None:
        outputs = self._roles.outputs
        kinds = column_kinds(tables, self._kinds, outputs=outputs)
        if self._roles.label in kinds and self._task is not None:
            classes = self._task == "classification"
            kinds[self._roles.label] = "categorical" if classes else "numeric"
        sources = {name: kind for name, kind in kinds.items() if name not in outputs}
        self._columns = tuple(sources)
        for name, kind in kinds.items():
            if kind in PLAIN_KINDS:
                arrays = [table.columns[name] for table in tables if name in table.columns]
                self._features[name] = FeatureRows(cast("FeatureKind", kind), type_of(arrays))
        fitted = Derivation.fit(tables, sources) if self._derive else None
        self._derivation = fitted
        described = set() if fitted is None else {*fitted.texts, *fitted.vectors}
        for name in sources.keys() - self._features.keys() - described:
            self.malformed[name] = f"is {kinds[name]}, and nothing was derived from it"
        if fitted is not None:
            derived = (*fitted.features, *fitted.projections)
            self._features.update({name: FeatureRows("numeric") for name in derived})

    def _choose_bins(self, held: list[_Chunk]) -> None:
        if self._like is None:
            bins = [(name, seen.provisional_bins()) for name, seen in self._features.items()]
        else:
            bins = [(p.name, opened(p.bins)) for p in self._like.profiles()]
        self._counted = self._counting(bins)
        projected = () if self._derivation is None else self._derivation.projections
        apart = {*self._roles.outputs, *projected}
        self._means = BinMeansBuilder([(n, own) for n, own in bins if n not in apart])
        for parts in PARTS:
            seasonal = [
                (name, replace(own, phases=season.phases))
                for name, own in bins
                for season in self._seasons.get(name, ())
                if len(season.phases) == parts and isinstance(own, NumericBins)
            ]
            if seasonal and self._like is None:
                self._seasonal[parts] = self._counting(seasonal)
        if self._roles.segment is not None:
            like = None if self._like is None else self._like.segments
            found = most_frequent([c.segments for c in held if c.segments is not None])
            names = found if like is None else list(like.names)
            self._segments = SegmentRows(self._roles.segment, names, len(bins))

    def _counting(self, bins: Sequence[tuple[str, Bins]]) -> CountedRows:
        return CountedRows(bins, tick_rows=self._tick_rows, ordered=self._ordered)

    def _add(self, chunk: _Chunk) -> None:
        columns = self._plain(chunk)
        self._remember(columns)
        self._count(chunk, columns)

    def _plain(self, chunk: _Chunk) -> dict[str, Column]:
        """Turn columns into floats and keys once, so that slices of them need no further look."""
        table = chunk.table
        derived = {} if self._derivation is None else self._derivation.derive(table)
        plain: dict[str, Column] = {}
        for name in table.vectors.keys() & self._features.keys():
            self.malformed[name] = "holds vectors in some rows; nothing of these was counted"
        for name, column in (*table.columns.items(), *derived.items()):
            seen = self._features.get(name)
            if seen is None:
                if name not in self._columns:
                    self.malformed[name] = "appeared after the bins were chosen"
            elif seen.kind == "categorical":
                plain[name] = category_keys(column)
            else:
                plain[name] = numbers(column).astype(np.float64, copy=False)
        return plain

    def _remember(self, columns: Mapping[str, Column]) -> None:
        for name, column in columns.items():
            self._features[name].add(column)

    def _count(self, chunk: _Chunk, columns: Mapping[str, Column]) -> None:
        rows = chunk.table.rows
        self._counted.add(columns, rows, chunk.times)
        if chunk.times is not None:
            for counted in self._seasonal.values():
                counted.add(columns, rows, chunk.times)
        if self._segments is not None and chunk.segments is not None and rows:
            self._segments.add(chunk.segments, columns, self._counted.binner, chunk.times)
        self._means.update(columns, chunk.score, chunk.loss)
        own = chunk.table.columns
        plain = [own[name] for name in self._columns if name in own and name in self._features]
        self._copies.update(plain, rows)

    def _profile(self, name: str, totals: Floats) -> FeatureProfile:
        seen = self._features[name]
        phi, tolerance = self._counted.calibration(name, categorical=seen.kind == "categorical")
        total = totals[self._counted.place[name]]
        if self._like is None:
            profile = profile_of(name, seen, self._counted.binner.bins_of(name), total)
        else:
            profile = like_profile(self._like_profiles[name], seen, total)
        profile = replace(profile, phi=phi, tolerance=tolerance, type=seen.type)
        if seen.kind == "categorical" and self._like is None:
            profile = allowing_for_luck(profile)
        if name in self._sensitive:
            profile = without_names(profile)
        return self._seasoned(profile) if self._seasonal else profile

    def _seasoned(self, profile: FeatureProfile) -> FeatureProfile:
        """Give the profile with the season that lets the smallest shift be seen, if any does."""
        best, bins = profile, profile.bins
        if not isinstance(bins, NumericBins) or len(bins.edges) != BINS - 1:
            return profile
        least = SEASON_GAIN * detectable_shift(profile.tolerance, profile.phi, profile.rows)
        for season in self._seasons.get(profile.name, ()):
            counted = self._seasonal[len(season.phases)]
            total = counted.total_of(profile.name)
            if not total[:BINS].sum():
                continue
            phi, tolerance = counted.calibration(profile.name)
            tolerance = significant(tolerance + season.margin(phi, profile.rows))
            shift = detectable_shift(tolerance, phi, profile.rows) * season.spread(bins)
            if shift < least:
                least = SEASON_GAIN * shift  # of a more detailed season more is asked
                total[[MISSING, OUTSIDE]] = profile.counts[MISSING], profile.counts[OUTSIDE]
                best = replace(
                    profile,
                    bins=replace(bins, phases=with_range(season.phases, bins)),
                    counts=tuple(total.tolist()),
                    counts_exact=True,
                    phi=phi,
                    tolerance=tolerance,
                )
        return best

    def _finished_segments(self, profiles: Mapping[str, FeatureProfile]) -> Segments | None:
        if self._segments is None:
            return None
        places = self._counted.place
        moved = {places[name]: final for name, final in self._moved(profiles).items()}
        return self._segments.finish([places[name] for name in profiles], moved)

    def _moved(self, profiles: Mapping[str, FeatureProfile]) -> dict[str, NDArray[np.int64] | None]:
        """Where the rows of each counted bin stand in the final bins, by feature."""
        bins_of = self._counted.binner.bins_of
        return {name: final_places(bins_of(name), p.bins) for name, p in profiles.items()}
