"""The reference as a file: exact, guarded by its digest, and clear about what is wrong with it."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import ProfileError, Reference, ReferenceBuilder, build_reference


def mixed(rows: int = 2_000, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "income": rng.lognormal(10, 1, rows),
        "age": rng.integers(18, 90, rows),
        "member": rng.random(rows) < 0.3,
        "region": rng.choice(np.array(["N", "S", "E", "W"], dtype=object), rows),
        "nothing": np.full(rows, None, dtype=object),
        "constant": np.full(rows, 7.5),
        "score": rng.random(rows),
    }


REFERENCE = build_reference(
    mixed(), prediction="score", errors=np.arange(100) % 10 == 0, task="classification"
)


def test_the_file_gives_back_the_very_same_reference() -> None:
    again = Reference.from_bytes(REFERENCE.to_bytes())
    assert again == REFERENCE
    assert again.digest == REFERENCE.digest
    assert again.to_bytes() == REFERENCE.to_bytes()


def test_the_same_rows_give_the_same_digest_and_others_another() -> None:
    assert build_reference(mixed()).digest == build_reference(mixed()).digest
    assert build_reference(mixed()).digest != build_reference(mixed(seed=1)).digest


def test_accepting_changes_no_digest() -> None:
    learnt = build_reference(mixed(), learnt=True)
    assert not learnt.accepted
    accepted = learnt.accept()
    assert accepted.accepted
    assert accepted.digest == learnt.digest
    assert Reference.from_bytes(accepted.to_bytes()).accepted


KEY = b"sixteen bytes or more"


def test_a_signature_holds_for_its_key_and_content_and_changes_no_digest() -> None:
    signed = REFERENCE.sign(KEY)
    assert signed.digest == REFERENCE.digest
    assert signed.signed_with(KEY)
    assert not signed.signed_with(b"another key of 16 bytes")
    assert not REFERENCE.signed_with(KEY)
    again = Reference.from_bytes(signed.to_bytes())
    assert again.signed_with(KEY)
    assert again.accept().signed_with(KEY)


def test_content_that_was_altered_with_its_digest_is_not_signed() -> None:
    """Whoever alters a file can compute a new digest, but no signature."""
    other = build_reference(mixed(seed=1))
    tree = json.loads(other.to_bytes()) | {"signature": REFERENCE.sign(KEY).signature}
    assert not Reference.from_bytes(json.dumps(tree).encode()).signed_with(KEY)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        REFERENCE.sign(b"short")
    with pytest.raises(ValueError, match="at least 16"):
        REFERENCE.signed_with(b"")


def test_figures_out_of_matrix_products_enter_the_digest_rounded() -> None:
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(20_000) / 300) + rng.normal(size=20_000)
    (feature,) = build_reference({"x": wave}).features
    assert feature.phi > 1
    for figure in (feature.phi, feature.tolerance):
        assert float(f"{figure:.4g}") == figure


def test_prediction_and_labelled_baseline_are_kept_apart_from_the_features() -> None:
    assert REFERENCE.prediction is not None
    assert REFERENCE.prediction.name == "score"
    assert "score" not in REFERENCE.feature_names
    assert REFERENCE.baseline is not None
    assert (REFERENCE.baseline.rows, REFERENCE.baseline.errors) == (100, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.update(rows=1), "digest does not match"),
        (lambda tree: tree.update(format=99), "format 99"),
        (lambda tree: tree.update(format=1), "format 1, not 2; build it again"),
        (lambda tree: tree["features"][0].update(type="odd"), "type 'odd'"),
        (lambda tree: tree.update(quality={"duplicate_ratio": "x"}), "malformed"),
        (lambda tree: tree.update(derivation={"format": 0}), "derivation"),
        (lambda tree: tree.update(segments={"column": "g", "names": ["a"], "counts": []}), "names"),
        (lambda tree: tree.update(kind="x"), "not a Remora reference"),
        (lambda tree: tree.pop("features"), "features"),
        (lambda tree: tree["features"][0].update(counts=[1]), "counts must be 18"),
        (lambda tree: tree["features"][0].update(kind="odd"), "kind 'odd'"),
        (lambda tree: tree["features"][0]["bins"].update(edges=[3, 1]), "edges must rise"),
        (lambda tree: tree.update(features=None), "malformed"),
    ],
)
def test_what_is_wrong_is_named(change: object, message: str) -> None:
    tree = json.loads(REFERENCE.to_bytes())
    change(tree)  # type: ignore[operator]
    with pytest.raises(ProfileError, match=message):
        Reference.from_bytes(json.dumps(tree).encode())


@given(data=st.binary(max_size=200) | st.just(REFERENCE.to_bytes()[:1_000]))
def test_any_bytes_are_refused_clearly(data: bytes) -> None:
    with pytest.raises(ProfileError):
        Reference.from_bytes(data)


def test_categories_are_named_only_when_frequent_and_not_sensitive() -> None:
    column = np.array(["often"] * 100 + ["seldom"] * 3, dtype=object)
    shown = build_reference({"x": column}).features[0]
    assert shown.labels()[:2] == ("often", "category 2")
    assert b"seldom" not in build_reference({"x": column}).to_bytes()
    hidden = build_reference({"x": column}, sensitive=["x"])
    assert hidden.features[0].labels()[0] == "category 1"
    assert b"often" not in hidden.to_bytes()


def test_probabilities_sum_to_one_and_only_live_bins_have_any() -> None:
    for feature in REFERENCE.features:
        p = feature.probabilities()
        assert p.sum() == pytest.approx(1)
        assert ((p > 0) == feature.live()).all()


@given(cuts=st.lists(st.integers(0, 3_000), max_size=5))
def test_how_the_rows_were_cut_does_not_matter(cuts: list[int]) -> None:
    columns = mixed(3_000)
    builder = ReferenceBuilder()
    limits = sorted({0, 3_000, *cuts})
    for a, b in pairwise(limits):
        builder.update({name: column[a:b] for name, column in columns.items()})
    whole = build_reference(columns)
    parts = builder.finish()
    for mine, theirs in zip(parts.features, whole.features, strict=True):
        assert np.allclose(mine.median, theirs.median, rtol=0.05, equal_nan=True)
        assert mine.kind == theirs.kind
        assert mine.rows == theirs.rows == 3_000


def test_a_long_reference_is_counted_exactly_without_being_held() -> None:
    rng = np.random.default_rng(5)
    builder = ReferenceBuilder()
    for _ in range(10):
        builder.update({"x": rng.normal(size=10_000)})
    feature = builder.finish().features[0]
    assert feature.counts_exact
    assert feature.rows == 100_000
    assert np.abs(feature.probabilities()[:16] - 1 / 16).max() < 0.01


def test_a_reference_that_moved_while_it_was_read_gets_new_bins_from_the_sketch() -> None:
    builder = ReferenceBuilder()
    builder.update({"x": np.random.default_rng(5).normal(size=20_000)})
    builder.update({"x": np.random.default_rng(6).normal(50, 1, size=80_000)})
    feature = builder.finish().features[0]
    assert not feature.counts_exact
    assert feature.probabilities()[:16].max() < 0.1


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_rows_are_ordinary_too(rows: int) -> None:
    reference = build_reference({name: column[:rows] for name, column in mixed().items()})
    assert reference.rows == rows
    assert Reference.from_bytes(reference.to_bytes()) == reference


def test_nothing_to_build_from_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ProfileError, match="no column"):
        build_reference({})
    with pytest.raises(ProfileError, match="'x': kind 'odd'"):
        build_reference({"x": [1, 2]}, kinds={"x": "odd"})
    with pytest.raises(ProfileError, match="timestamps"):
        build_reference({"x": [1, 2]}, timestamps=[1])


def test_timestamps_put_the_rows_in_order() -> None:
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(10_000) / 500) + rng.normal(0, 0.1, 10_000)
    shuffled = rng.permutation(10_000)
    ordered = build_reference({"x": wave[shuffled]}, timestamps=shuffled).features[0]
    assert ordered.phi > 10
    assert build_reference({"x": wave[shuffled]}).features[0].phi < 1.6
