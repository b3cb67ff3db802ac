"""A reference learnt from traffic, and learnt on after a restart."""

import json

import numpy as np

from agent.batch import Batch
from agent.learning import Learning
from agent.schema import Feature, Schema, SchemaSettings
from agent.schema_learning import SchemaLearner
from agent.version_watch import VersionWatch
from detectors.settings import Settings

RNG = np.random.default_rng(0)
SCHEMA = Schema(
    features=tuple(Feature(name=name, kind="numeric") for name in "ab"),
    prediction="label",
    score="score",
    target="class",
)


def learning() -> Learning:
    """Learning with a schema that is settled from the start."""
    settings = SchemaSettings(
        features=SCHEMA.names,
        kinds=SCHEMA.kinds,
        prediction="label",
        score="score",
        target="class",
    )
    return Learning(SchemaLearner(settings, rows_max=0), learn_rows=10_000, tick_rows=1_000)


def batch(rows: int) -> Batch:
    a = RNG.normal(size=rows)
    score = RNG.random(rows)
    return Batch(
        version="v1",
        slot="stable",
        rows=rows,
        opened_at=0.0,
        closed_at=0.0,
        ids=("r",) * rows,
        row_numbers=np.arange(rows),
        aliases={},
        at=np.zeros(rows),
        weight=np.ones(rows),
        uniform=np.ones(rows, dtype=bool),
        columns={"a": a, "b": a + 0.3 * RNG.normal(size=rows)},
        prediction=np.where(score > 0.5, "1", "0").astype(object),
        score=score,
        scores=None,
        schema=SCHEMA,
        type_changes={},
        unexpected={},
    )


def test_the_score_and_relations_between_features_are_learnt_too() -> None:
    taught = learning()
    for _ in range(5):
        taught.take(batch(1_000))
    reference = taught.finish()
    assert reference.feature_names == ("a", "b")
    assert reference.prediction is not None
    assert reference.score is not None
    assert (reference.prediction.kind, reference.score.kind) == ("categorical", "numeric")
    assert reference.projections


def test_what_is_learnt_after_a_restart_adds_exactly_and_keeps_projections() -> None:
    before = learning()
    for _ in range(3):
        before.take(batch(1_000))
    before.provisional = VersionWatch("v1", before.finish(), Settings(), provisional=True)
    after = learning()
    after.restore(json.loads(json.dumps(before.state(), default=str)))
    assert after.rows == 3_000
    for _ in range(4):
        after.take(batch(1_000))
    reference = after.finish()
    assert reference.rows == 7_000
    assert reference.learnt
    assert reference.projections
    assert all(profile.counts_exact for profile in reference.features)
    assert {profile.rows for profile in reference.profiles()} == {7_000}
