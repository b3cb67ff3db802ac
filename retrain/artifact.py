"""A model on disk: a directory of known files and a manifest that names every byte of them.

The digest of an artifact is the sha256 of its manifest, and the manifest holds the sha256 of
each file: whoever trusts the digest trusts the whole. Nothing here unpickles, and nothing here
imports torch or onnxruntime: the agent calls `verify` before it hands an artifact to anybody.
Archives are in `retrain/bundle.py`, the way from rows to the graph in `retrain/preprocess.py`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrain.preprocess import Preprocess

SCHEMA = "remora.model/1"
MANIFEST = "manifest.json"
MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
ARCH = "arch.json"
PREPROCESS = "preprocess.json"
REFERENCE = "reference.json"
GOLDEN = "golden.npz"
CARD = "card.md"
REQUIRED = frozenset({MODEL, PREPROCESS})
# The set is closed: a file that nobody reads is a file that nobody checks.
ALLOWED = REQUIRED | {WEIGHTS, ARCH, REFERENCE, GOLDEN, CARD}
UNPICKLED = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".bin", ".ckpt")

MANIFEST_BYTES_MAX = 1 << 20
FILES_MAX = 16
BYTES_MAX = 4 << 30


class ArtifactError(ValueError):
    """An artifact that must not be used. `problems` names each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the artifact; `sha256` in hex."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output of the graph. A dimension given by name (`b`) is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`manifest.json`. The free sections are JSON; whoever writes one documents it.

    `parent`: digest of the stable model that this one was trained against, None for a first one.
    `created`: RFC 3339, UTC.
    """

    line: str
    version: str
    parent: str | None
    created: str
    opset: int
    ir: int
    signature: Signature
    files: tuple[FileEntry, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    compression: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical manifest."""
        return "sha256:" + hashlib.sha256(canonical_json(self.as_json())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "line": self.line,
            "version": self.version,
            "parent": self.parent,
            "created": self.created,
            "format": "onnx",
            "opset": self.opset,
            "ir": self.ir,
            "runtime": {"onnxruntime": ">=1.20"},
            "signature": {
                side: [
                    {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
                    for spec in specs
                ]
                for side, specs in (
                    ("inputs", self.signature.inputs),
                    ("outputs", self.signature.outputs),
                )
            },
            "files": [
                {"path": entry.path, "sha256": entry.sha256, "bytes": entry.bytes}
                for entry in sorted(self.files, key=lambda entry: entry.path)
            ],
            "training": self.training,
            "data": self.data,
            "compression": self.compression,
            "metrics": self.metrics,
        }

    @classmethod
    def from_json(cls, value: object) -> "Manifest":
        """Raises ArtifactError naming the key."""
        if not isinstance(value, Mapping):
            raise ArtifactError("manifest.json: not an object")
        if value.get("schema") != SCHEMA:
            raise ArtifactError(f"manifest.json: schema is {value.get('schema')!r}, not {SCHEMA}")
        try:
            signature = Signature(
                inputs=tuple(_spec(entry) for entry in value["signature"]["inputs"]),
                outputs=tuple(_spec(entry) for entry in value["signature"]["outputs"]),
            )
            files = tuple(
                FileEntry(
                    path=str(entry["path"]),
                    sha256=str(entry["sha256"]),
                    bytes=int(entry["bytes"]),
                )
                for entry in value["files"]
            )
            parent = value["parent"]
            sections = {name: value[name] for name in _SECTIONS}
            read = cls(
                line=str(value["line"]),
                version=str(value["version"]),
                parent=None if parent is None else str(parent),
                created=str(value["created"]),
                opset=int(value["opset"]),
                ir=int(value["ir"]),
                signature=signature,
                files=files,
                **sections,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"manifest.json: {error!r}: absent or of the wrong type") from error
        wrong = [name for name in _SECTIONS if not isinstance(sections[name], Mapping)]
        if wrong:
            raise ArtifactError(f"manifest.json: {wrong[0]} is not an object")
        if canonical_json(value) != canonical_json(read.as_json()):
            raise ArtifactError(
                "manifest.json: holds keys or values that this version does not know"
            )
        return read


_SECTIONS = ("training", "data", "compression", "metrics")


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8: the bytes that are hashed and signed.

    Raises ValueError for NaN and Infinity, which JSON does not have.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def directory_name(digest: str) -> str:
    """`sha256:<hex>` as the name of a directory in a content-addressed store."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ArtifactError(f"not a digest: {digest[:80]!r}")
    return f"sha256-{value}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(directory: Path) -> tuple[FileEntry, ...]:
    """Sizes and hashes of what lies in `directory`, the manifest itself left out."""
    return tuple(
        FileEntry(path=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    )


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Fills in `files` from the directory, writes the manifest, and verifies the whole.

    Raises ArtifactError if what lies there is no good artifact.
    """
    sealed = replace(manifest, files=file_entries(directory))
    partial = directory / (MANIFEST + ".partial")
    with partial.open("wb") as file:
        file.write(canonical_json(sealed.as_json()))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / MANIFEST)
    return load(directory)


def load(directory: Path) -> Manifest:
    """The manifest of an artifact whose every byte has been checked. Raises ArtifactError."""
    problems = verify(directory)
    if problems:
        raise ArtifactError(*problems)
    return read_manifest(directory)


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone, files unchecked. Raises ArtifactError if it is absent or malformed."""
    path = directory / MANIFEST
    if not _is_regular(path):
        raise ArtifactError(f"{MANIFEST}: absent, or not a regular file")
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise ArtifactError(f"{MANIFEST}: larger than {MANIFEST_BYTES_MAX} bytes")
    raw = path.read_bytes()
    value = _json(raw, MANIFEST)
    if raw != canonical_json(value):
        raise ArtifactError(f"{MANIFEST}: not canonical JSON (sorted keys, no spaces)")
    return Manifest.from_json(value)


def read_preprocess(directory: Path) -> Preprocess:
    """`preprocess.json`. Raises ArtifactError."""
    try:
        return Preprocess.from_json(_json((directory / PREPROCESS).read_bytes(), PREPROCESS))
    except (OSError, ValueError) as error:
        raise ArtifactError(str(error)) from error


def verify(directory: Path) -> tuple[str, ...]:
    """Recomputes everything; returns one line per thing that is wrong, none if all is well."""
    if not directory.is_dir():
        return (f"{directory.name}: not a directory",)
    try:
        manifest = read_manifest(directory)
    except ArtifactError as error:
        return error.problems
    problems = [*_layout_problems(directory, manifest)]
    if not problems:
        for entry in manifest.files:
            problems.extend(_file_problems(directory, entry))
    if not problems:
        problems.extend(_content_problems(directory, manifest))
    return tuple(problems)


def name_problem(name: str) -> str | None:
    """Why a file of this name has no place in an artifact; None if it has one."""
    if name in ALLOWED or name == MANIFEST:
        return None
    if name.lower().endswith(UNPICKLED):
        return f"{name[:80]!r}: files of this kind can run code when opened, and are refused"
    return f"{name[:80]!r}: not a file of an artifact"


def _layout_problems(directory: Path, manifest: Manifest) -> Iterator[str]:
    listed = [entry.path for entry in manifest.files]
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        yield f"{MANIFEST}: lists {name[:80]!r} twice"
    for name in listed:
        problem = name_problem(name)
        if problem is not None:
            yield f"{MANIFEST}: lists {problem}"
    for name in sorted(REQUIRED - set(listed)):
        yield f"{name}: required, and not listed in {MANIFEST}"
    if sum(entry.bytes for entry in manifest.files) > BYTES_MAX:
        yield f"{MANIFEST}: the files are larger than {BYTES_MAX} bytes together"
    for path in sorted(directory.iterdir()):
        problem = name_problem(path.name)
        if problem is not None:
            yield problem
        elif path.name != MANIFEST and path.name not in listed:
            yield f"{path.name}: lies in the directory and is not listed in {MANIFEST}"


def _file_problems(directory: Path, entry: FileEntry) -> Iterator[str]:
    path = directory / entry.path
    if not _is_regular(path):
        yield f"{entry.path}: absent, or not a regular file"
        return
    size = path.stat().st_size
    if size != entry.bytes:
        yield f"{entry.path}: has {size} bytes, {MANIFEST} says {entry.bytes}"
        return
    actual = sha256_of(path)
    if actual != entry.sha256:
        yield f"{entry.path}: sha256 is {actual}, {MANIFEST} says {entry.sha256}"


def _content_problems(directory: Path, manifest: Manifest) -> Iterator[str]:
    try:
        preprocess = read_preprocess(directory)
        width = len(preprocess.features)
        inputs = manifest.signature.inputs
        if len(inputs) != 1 or inputs[0].shape[1:] != (width,):
            yield f"{MANIFEST}: the signature takes no [b, {width}] as {PREPROCESS} says"
        for name in (ARCH, REFERENCE):
            if (directory / name).exists():
                _json((directory / name).read_bytes(), name)
    except ArtifactError as error:
        yield from error.problems
    if (directory / GOLDEN).exists():
        try:
            with np.load(directory / GOLDEN, allow_pickle=False) as golden:
                for name in golden.files:
                    golden[name].shape  # noqa: B018  # reading is what refuses object arrays
        except (OSError, ValueError) as error:
            yield f"{GOLDEN}: {error}"


def _spec(value: Mapping[str, Any]) -> TensorSpec:
    shape = value["shape"]
    if not isinstance(shape, list) or not all(isinstance(size, int | str) for size in shape):
        raise TypeError("shape")
    return TensorSpec(name=str(value["name"]), dtype=str(value["dtype"]), shape=tuple(shape))


def _json(raw: bytes, name: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: not JSON: {error}") from error


def _is_regular(path: Path) -> bool:
    # lstat: a link out of the directory would be checked here and swapped afterwards.
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
