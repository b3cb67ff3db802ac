"""Versions, slots, quarantine and artifacts, and that each change is whole or absent."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from retrain.artifact_store import ArtifactStore
from retrain.ledger import Ledger
from retrain.registry import Registry, SlotRecord, Version, external
from retrain.rollout import Admission, Rollout, State, advance, begin
from retrain.rollout_messages import (
    ClearCooldown,
    InstallReference,
    MakeStable,
    Notify,
    Quarantine,
    Record,
    RestoreReference,
    StartCooldown,
    Started,
)

UPSTREAM = "http://127.0.0.1:8000"
NEW = "sha256:" + "b" * 64
OLD = external(UPSTREAM)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "decisions.db")


def opened(ledger: Ledger) -> Registry:
    registry = Registry(ledger, cooldown_s=100.0)
    assert registry.reconcile_upstream(UPSTREAM, label="1", digest=None, at=1.0) is None
    return registry


def rollout(name: str = "r1") -> Rollout:
    value = Rollout(id=name, candidate=NEW, stable=OLD, candidate_slot="B", stable_slot="A")
    return begin(value, Admission(verified=True), 10.0)


def promoted(registry: Registry) -> None:
    registry.set_slot(SlotRecord(name="B", digest=NEW, address="http://127.0.0.1:9", pid=7))
    registry.make_stable("B", at=2.0, actor="r1", reason="promoted")


def test_the_first_start_makes_the_upstream_stable(ledger: Ledger) -> None:
    registry = opened(ledger)
    stable = registry.stable()
    assert stable == SlotRecord(name="A", digest=OLD, address=UPSTREAM, stable=True)
    assert registry.reference() == OLD
    assert registry.version("1") == registry.version(OLD)


def test_the_ledger_overrides_the_configuration_and_says_so(ledger: Ledger) -> None:
    promoted(opened(ledger))
    again = Registry(ledger)
    words = again.reconcile_upstream(UPSTREAM, label="1", digest=None, at=3.0)
    assert words is not None
    assert f"the configuration names {UPSTREAM}, but slot B" in words
    stable = again.stable()
    assert stable is not None
    assert stable.digest == NEW


def test_a_changed_upstream_is_a_new_version(ledger: Ledger) -> None:
    registry = opened(ledger)
    words = registry.reconcile_upstream("http://127.0.0.1:8001", label="2", digest=None, at=3.0)
    assert words is not None
    assert "a new version, stable" in words
    stable = registry.stable()
    assert stable is not None
    assert stable.digest == external("http://127.0.0.1:8001")
    assert ledger.entries()[-1].reason == words
    assert not registry.reconcile_upstream("http://127.0.0.1:8001", label="2", digest=None, at=4.0)


def test_a_changed_upstream_does_not_displace_what_was_promoted(ledger: Ledger) -> None:
    registry = opened(ledger)
    promoted(registry)
    words = registry.reconcile_upstream("http://127.0.0.1:8001", label="2", digest=None, at=3.0)
    assert words is not None
    assert "the promoted version stays" in words
    stable = registry.stable()
    assert stable is not None
    assert stable.name == "B"


def test_two_stable_slots_cannot_be_written_down(ledger: Ledger) -> None:
    opened(ledger)
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        db.execute("UPDATE slot SET stable = 1")


def test_only_one_rollout_is_under_way(ledger: Ledger) -> None:
    registry = opened(ledger)
    registry.store(rollout(), (), at=10.0, actor="policy")
    with pytest.raises(sqlite3.IntegrityError):
        registry.store(rollout("r2"), (), at=11.0, actor="policy")
    assert registry.admission(NEW, verified=True, by_operator=False).in_flight == "r1"
    registry.store(replace(rollout(), state=State.ABORTED), (), at=12.0, actor="policy")
    registry.store(rollout("r2"), (), at=13.0, actor="policy")
    assert [entry.id for entry in registry.rollouts()] == ["r2", "r1"]


def test_a_rollout_comes_back_from_disk_as_it_was(ledger: Ledger) -> None:
    registry = opened(ledger)
    moved, commands = advance(rollout(), Started(), 11.0)
    registry.store(moved, commands, at=11.0, actor="policy")
    registry.save_analysis("r1", {"a": [0.1]})
    again = Registry(ledger)
    assert again.in_flight() == moved
    assert again.generation() == moved.generation
    assert again.analysis("r1") == {"a": [0.1]}
    assert ledger.entries(kind="rollout")[-1].reason == "started by policy"


def test_what_a_rollout_decided_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    registry = opened(ledger)

    def full(*_: object) -> None:
        raise OSError("disk full")

    commands = (Quarantine(digest=NEW, reason="bad"), Notify(type="remora.rollout.held", reason=""))
    with pytest.raises(OSError, match="disk full"):
        registry.store(rollout(), commands, at=10.0, actor="policy", notify=full)
    assert registry.in_flight() is None
    assert registry.quarantined() == []


def test_quarantine_lasts_until_somebody_lifts_it(ledger: Ledger) -> None:
    registry = opened(ledger)
    command = Quarantine(digest=NEW, reason="errors 31/402")
    registry.store(rollout(), (command, command), at=10.0, actor="policy")
    assert [entry.reason for entry in registry.quarantined()] == ["errors 31/402"]
    admission = registry.admission(NEW, verified=True, by_operator=True)
    assert admission.quarantined == "errors 31/402"
    assert registry.release(NEW, at=11.0, actor="ada", reason="was the network")
    assert not registry.release(NEW, at=12.0, actor="ada", reason="again")
    assert registry.quarantined() == []


def test_cooldowns_double_and_a_good_bake_ends_them(ledger: Ledger) -> None:
    registry = opened(ledger)
    until = []
    for name in ("r1", "r1", "r2", "r3"):
        registry.store(
            replace(rollout(name), state=State.ROLLED_BACK),
            (StartCooldown(rollout=name),),
            at=1_000.0,
            actor="policy",
        )
        found = registry.admission(NEW, verified=True, by_operator=False)
        until.append(found.cooldown_until)
    assert until == [1_100.0, 1_100.0, 1_200.0, 1_400.0]
    registry.store(
        replace(rollout("r4"), state=State.LIVE), (ClearCooldown(),), at=2_000.0, actor="policy"
    )
    assert registry.admission(NEW, verified=True, by_operator=False).cooldown_until == 0.0


def test_the_reference_follows_the_release(ledger: Ledger) -> None:
    registry = opened(ledger)
    registry.store(rollout(), (InstallReference(digest=NEW),), at=10.0, actor="policy")
    assert registry.reference() == NEW
    registry.store(rollout(), (RestoreReference(digest=OLD),), at=11.0, actor="policy")
    assert registry.reference() == OLD
    assert [entry.subject for entry in ledger.entries(kind="reference")] == [OLD, NEW, OLD]


def test_a_slot_left_behind_by_a_crash_is_found(ledger: Ledger) -> None:
    registry = opened(ledger)
    registry.set_slot(SlotRecord(name="B", digest=NEW, address="http://127.0.0.1:9", pid=7))
    registry.store(rollout(), (), at=10.0, actor="policy")
    assert registry.unused_slots() == []
    registry.store(replace(rollout(), state=State.ABORTED), (), at=11.0, actor="policy")
    assert [record.name for record in registry.unused_slots()] == ["B"]


def test_other_commands_are_not_the_registrys_business(ledger: Ledger) -> None:
    registry = opened(ledger)
    record = Record(kind="promotion", reason="so", data={"weight": 1.0})
    make = MakeStable(generation=3, slot="B", digest=NEW)
    registry.store(rollout(), (record, make), at=10.0, actor="policy")
    stable = registry.stable()
    assert stable is not None
    assert stable.name == "A"


def test_what_must_not_be_collected(ledger: Ledger) -> None:
    registry = opened(ledger)
    for number in range(6):
        registry.add_version(
            Version(
                digest=f"sha256:{number:064x}",
                label=str(number),
                origin="run",
                directory="d",
                at=float(number),
            )
        )
    registry.store(rollout(), (), at=10.0, actor="policy")
    assert registry.kept() == {OLD, NEW, *(f"sha256:{number:064x}" for number in (3, 4, 5))}


def artifact(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "manifest.json").write_bytes(b"{}")
    return folder


def test_an_artifact_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    where = store.add(artifact(tmp_path / "made"), NEW)
    assert where.name == NEW.replace(":", "-")
    assert (where / "model.onnx").read_bytes() == b"model"
    assert store.add(tmp_path / "made", NEW) == where
    assert store.digests() == [NEW]
    assert store.remove_all_but([]) == [NEW]
    assert store.digests() == []


def test_half_a_copy_is_never_found(tmp_path: Path) -> None:
    source = artifact(tmp_path / "made")
    (source / "zlink").symlink_to("/etc/hostname")
    store = ArtifactStore(tmp_path / "artifacts")
    with pytest.raises(ValueError, match="no plain file"):
        store.add(source, NEW)
    assert store.digests() == []
    (tmp_path / "artifacts" / "tmp" / "left").mkdir()
    ArtifactStore(tmp_path / "artifacts")
    assert not list((tmp_path / "artifacts" / "tmp").iterdir())


@pytest.mark.parametrize("digest", ["../x", "sha256:..", "sha256:" + "b" * 63, OLD])
def test_what_is_no_digest_names_no_folder(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ValueError, match="no sha256 digest"):
        ArtifactStore(tmp_path).path(digest)


UNROUTED = "unrouted:m@2"


def test_where_nobody_routes_any_more_the_configured_model_is_stable(ledger: Ledger) -> None:
    registry = opened(ledger)
    promoted(registry)
    words = registry.reconcile_upstream(UNROUTED, label="2", digest=None, at=3.0, routed=False)
    assert words is not None
    assert "nothing is relayed any more" in words
    stable = registry.stable()
    assert stable == SlotRecord(name="A", digest=external(UNROUTED), address=UNROUTED, stable=True)
    assert registry.reference() == external(UNROUTED)
    # What was promoted stands in its slot until somebody ends it.
    assert [record.name for record in registry.unused_slots()] == ["B"]
    again = registry.reconcile_upstream(UNROUTED, label="2", digest=None, at=4.0, routed=False)
    assert again is None


def test_another_configured_version_is_another_model_where_nobody_routes(ledger: Ledger) -> None:
    registry = Registry(ledger)
    first = registry.reconcile_upstream(UNROUTED, label="2", digest=None, at=1.0, routed=False)
    assert first is None
    registry.reconcile_upstream("unrouted:m@3", label="3", digest=None, at=2.0, routed=False)
    stable = registry.stable()
    assert stable is not None
    assert stable.digest == "external:unrouted:m@3"
    registry.reconcile_upstream(UPSTREAM, label="3", digest=None, at=3.0)  # a proxy came
    stable = registry.stable()
    assert stable is not None
    assert (stable.digest, stable.address) == (OLD, UPSTREAM)


def test_a_rollout_under_way_is_not_taken_its_slots(ledger: Ledger) -> None:
    registry = opened(ledger)
    promoted(registry)
    registry.store(rollout(), (), at=2.5, actor="test")
    registry.reconcile_upstream(UNROUTED, label="2", digest=None, at=3.0, routed=False)
    stable = registry.stable()
    assert stable is not None
    assert stable.name == "B"
