"""Artifacts: what is checked, what is refused, and that nothing half-made is left behind."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from retrain import artifact, bundle
from retrain.artifact import ArtifactError, Manifest, Signature, TensorSpec
from retrain.preprocess import (
    EncodeError,
    Feature,
    Kind,
    Preprocess,
    Task,
    decode_output,
    encode_rows,
)

ROWS = Preprocess(
    task=Task.CLASSIFICATION,
    target="income",
    classes=("no", "yes"),
    features=(
        Feature(name="age", kind=Kind.NUMERIC),
        Feature(name="work", kind=Kind.CATEGORICAL, categories=("private", "state", "3")),
    ),
)
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("b", 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("b", 2)),),
)


def a_manifest(**changes: object) -> Manifest:
    given: dict[str, object] = {
        "line": "income",
        "version": "2026-11-22T2101Z-7f3a",
        "parent": None,
        "created": "2026-11-22T21:01:00Z",
        "opset": 17,
        "ir": 8,
        "signature": SIGNATURE,
        "files": (),
        "metrics": {"accuracy": 0.84},
    }
    return Manifest(**{**given, **changes})  # type: ignore[arg-type]  # a test's shorthand


def an_artifact(directory: Path) -> Path:
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"the bytes of a model" * 100)
    (directory / "preprocess.json").write_text(json.dumps(ROWS.as_json()))
    np.savez(directory / "golden.npz", x=np.zeros((2, 2), np.float32))
    (directory / "card.md").write_text("# A model\n")
    artifact.seal(directory, a_manifest())
    return directory


def a_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def test_a_sealed_artifact_verifies_and_its_digest_is_that_of_the_manifest_file(
    tmp_path: Path,
) -> None:
    directory = an_artifact(tmp_path / "a")
    assert artifact.verify(directory) == ()
    manifest = artifact.load(directory)
    assert manifest.digest == "sha256:" + artifact.sha256_of(directory / "manifest.json")
    assert manifest.metrics == {"accuracy": 0.84}
    assert artifact.read_preprocess(directory) == ROWS


def test_every_byte_counts(tmp_path: Path) -> None:
    for name in ("model.onnx", "preprocess.json", "golden.npz", "card.md"):
        directory = an_artifact(tmp_path / name)
        raw = bytearray((directory / name).read_bytes())
        raw[-1] ^= 1
        (directory / name).write_bytes(raw)
        problems = artifact.verify(directory)
        assert len(problems) == 1
        assert problems[0].startswith(f"{name}: sha256 is")


def test_a_longer_file_and_an_absent_one_are_named(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    with (directory / "card.md").open("a") as file:
        file.write("more")
    (directory / "golden.npz").unlink()
    assert artifact.verify(directory) == (
        "card.md: has 14 bytes, manifest.json says 10",
        "golden.npz: absent, or not a regular file",
    )


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", "w.pth", "m.joblib", "x.npy"])
def test_what_unpickles_is_refused_by_name(tmp_path: Path, name: str) -> None:
    directory = an_artifact(tmp_path / "a")
    (directory / name).write_bytes(b"\x80\x04.")
    assert "can run code" in artifact.verify(directory)[0]


def test_unlisted_files_are_refused_even_when_their_name_is_known(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    (directory / "weights.safetensors").write_bytes(b"x")
    (directory / "notes.txt").write_text("x")
    problems = artifact.verify(directory)
    assert problems[0] == "'notes.txt': not a file of an artifact"
    assert "not listed" in problems[1]


def test_a_link_is_no_file(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    (directory / "model.onnx").rename(tmp_path / "elsewhere")
    (directory / "model.onnx").symlink_to(tmp_path / "elsewhere")
    assert artifact.verify(directory) == ("model.onnx: absent, or not a regular file",)


def test_an_object_array_in_golden_rows_is_refused(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    np.savez(directory / "golden.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ArtifactError, match=r"golden\.npz: .*allow_pickle"):
        artifact.seal(directory, a_manifest())


def test_a_manifest_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    path = directory / "manifest.json"
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value, indent=1))
    assert "not canonical" in artifact.verify(directory)[0]
    path.write_bytes(artifact.canonical_json({**value, "extra": 1}))
    assert "does not know" in artifact.verify(directory)[0]
    path.write_bytes(artifact.canonical_json({**value, "schema": "remora.model/9"}))
    assert "schema is 'remora.model/9'" in artifact.verify(directory)[0]
    path.write_bytes(b"[]")
    assert artifact.verify(directory) == ("manifest.json: not an object",)
    path.unlink()
    assert artifact.verify(directory) == ("manifest.json: absent, or not a regular file",)


def test_a_manifest_cannot_list_paths_out_of_the_directory(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    (tmp_path / "model.onnx").write_bytes(b"x")
    value = json.loads((directory / "manifest.json").read_bytes())
    value["files"].insert(0, {"path": "../model.onnx", "sha256": "0" * 64, "bytes": 1})
    (directory / "manifest.json").write_bytes(artifact.canonical_json(value))
    assert artifact.verify(directory) == (
        "manifest.json: lists '../model.onnx': not a file of an artifact",
    )


def test_signature_and_preprocessing_must_agree(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    wide = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("b", 7)),), outputs=SIGNATURE.outputs
    )
    with pytest.raises(ArtifactError, match=r"takes no \[b, 2\]"):
        artifact.seal(directory, a_manifest(signature=wide))


def test_nan_has_no_place_in_a_manifest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = a_manifest(metrics={"accuracy": float("nan")}).digest


def test_pack_and_unpack_give_the_same_artifact_and_packing_is_reproducible(
    tmp_path: Path,
) -> None:
    directory = an_artifact(tmp_path / "a")
    bundle.pack(directory, tmp_path / "one.tar.gz")
    for path in directory.iterdir():
        os.utime(path, (1, 1))
    bundle.pack(directory, tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    manifest = bundle.unpack(tmp_path / "one.tar.gz", tmp_path / "store" / "b")
    assert manifest == artifact.load(directory)
    assert artifact.verify(tmp_path / "store" / "b") == ()
    with pytest.raises(FileExistsError):
        bundle.unpack(tmp_path / "one.tar.gz", tmp_path / "store" / "b")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("/etc/passwd"), "is a path"),
        (member("../model.onnx"), "is a path"),
        (member("a/model.onnx"), "is a path"),
        (member("..\\model.onnx"), "is a path"),
        (member("model.onnx", tarfile.SYMTYPE, "/etc/passwd"), "link, directory or device"),
        (member("model.onnx", tarfile.LNKTYPE, "manifest.json"), "link, directory or device"),
        (member("model.onnx", tarfile.CHRTYPE), "link, directory or device"),
        (member("model.onnx", tarfile.FIFOTYPE), "link, directory or device"),
        (member("model.onnx", tarfile.DIRTYPE), "link, directory or device"),
        (member("model.pkl"), "can run code"),
        (member("run.sh"), "not a file of an artifact"),
    ],
)
def test_hostile_members_are_refused_and_leave_nothing(
    tmp_path: Path, info: tarfile.TarInfo, reason: str
) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", (info, b""))
    with pytest.raises(ArtifactError, match=reason):
        bundle.unpack(archive, tmp_path / "store" / "a")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    archive = a_tar(
        tmp_path / "a.tar.gz", (member("model.onnx"), b"good"), (member("model.onnx"), b"bad")
    )
    with pytest.raises(ArtifactError, match="comes twice"):
        bundle.unpack(archive, tmp_path / "a")


def test_a_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    archive = a_tar(tmp_path / "a.tar.gz", (member("model.onnx"), bytes(8 << 20)))
    assert archive.stat().st_size < 20_000
    with pytest.raises(ArtifactError, match="more bytes than allowed"):
        bundle.unpack(archive, tmp_path / "a", bundle.UnpackLimits(unpacked_bytes_max=1 << 20))
    # The same by a header that claims a great deal and a stream that gives it.
    huge = member("model.onnx")
    huge.size = 8 << 20
    raw = gzip.compress(huge.tobuf() + bytes(8 << 20))
    (tmp_path / "b.tar.gz").write_bytes(raw)
    with pytest.raises(ArtifactError, match="more bytes than allowed"):
        bundle.unpack(
            tmp_path / "b.tar.gz", tmp_path / "b", bundle.UnpackLimits(unpacked_bytes_max=1 << 20)
        )


def test_too_many_files_and_broken_archives_are_refused(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    bundle.pack(directory, tmp_path / "a.tar.gz")
    with pytest.raises(ArtifactError, match="more than 2 files"):
        bundle.unpack(tmp_path / "a.tar.gz", tmp_path / "b", bundle.UnpackLimits(files_max=2))
    raw = (tmp_path / "a.tar.gz").read_bytes()
    for cut in (0, 1, 40, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.tar.gz").write_bytes(raw[:cut])
        with pytest.raises(ArtifactError):
            bundle.unpack(tmp_path / "cut.tar.gz", tmp_path / "c")
        assert not (tmp_path / "c").exists()


def test_a_changed_file_inside_an_archive_is_found(tmp_path: Path) -> None:
    directory = an_artifact(tmp_path / "a")
    archive = a_tar(
        tmp_path / "a.tar.gz",
        *(
            (member(path.name), path.read_bytes().replace(b"a model", b"a modem"))
            for path in sorted(directory.iterdir())
        ),
    )
    with pytest.raises(ArtifactError, match=r"model\.onnx: sha256 is"):
        bundle.unpack(archive, tmp_path / "b")


def test_rows_are_encoded_as_the_table_says() -> None:
    matrix = encode_rows(
        {
            "work": ["private", b"state", 3, 3.0, "3", "martian", None, "?", float("nan"), ["x"]],
            "age": [1, "2.5", None, "", "old", float("inf"), 1e300, np.float32(7), True, -1],
            "other": [0] * 10,
        },
        ROWS,
    )
    assert matrix.dtype == np.float32
    nan = float("nan")
    np.testing.assert_array_equal(matrix[:, 0], [1, 2.5, nan, nan, nan, nan, nan, 7, 1, -1])
    np.testing.assert_array_equal(matrix[:, 1], [0, 1, 2, 2, 2, 3, nan, nan, nan, 3])


def test_truth_is_one_category_however_it_is_written_and_is_not_the_number_one() -> None:
    feature = Feature(name="f", kind=Kind.CATEGORICAL, categories=("1", "false", "true"))
    table = Preprocess(task=Task.REGRESSION, target="t", features=(feature,))
    cells = [1, True, "True", "true", np.bool_(True), False, "False", b"1", 1.0]
    matrix = encode_rows({"f": cells}, table)
    np.testing.assert_array_equal(matrix[:, 0], [0, 2, 2, 2, 2, 1, 1, 0, 0])


def test_open_inference_columns_of_one_value_a_row_are_rows() -> None:
    matrix = encode_rows({"age": np.array([[1.0], [2.0]]), "work": [["private"], ["state"]]}, ROWS)
    np.testing.assert_array_equal(matrix, [[1, 0], [2, 1]])
    assert encode_rows({"age": [], "work": []}, ROWS).shape == (0, 2)


def test_columns_that_are_no_rows_are_refused() -> None:
    with pytest.raises(EncodeError, match="absent: work"):
        encode_rows({"age": [1]}, ROWS)
    with pytest.raises(EncodeError, match="different lengths"):
        encode_rows({"age": [1], "work": ["a", "b"]}, ROWS)
    with pytest.raises(EncodeError, match="shape"):
        encode_rows({"age": np.zeros((2, 2)), "work": ["a", "b"]}, ROWS)


def test_outputs_become_labels_and_scores() -> None:
    said = decode_output(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), ROWS)
    assert said.prediction.tolist() == ["no", "yes"]
    assert said.score is not None
    np.testing.assert_allclose(said.score, [0.1, 0.8], rtol=1e-6)
    with pytest.raises(EncodeError, match="expected"):
        decode_output(np.zeros((3, 1), np.float32), ROWS)
