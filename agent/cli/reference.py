"""`remora reference build|show|merge|import|accept|sign|verify`: what rows are compared with."""

import argparse
import sys
from pathlib import Path

from agent.cli.client import AdminClient, add_admin
from agent.cli.output import plain, print_json
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.cli.profile import read_reference, write_whole
from agent.cli.rows import add_column_flags, positive, progress
from agent.errors import BadInputError

KEY_BYTES_MAX = 4_096
SEASONALITY = ("auto", "none", "day", "week")


def add(subparsers: Subparsers) -> None:
    """Registers the group."""
    group = add_group(
        subparsers,
        "reference",
        purpose="build, show, merge, sign or accept a reference profile",
        example="remora reference build train.csv --target label --out reference.json",
    )
    parser = add_command(
        group,
        "build",
        build,
        purpose="a reference profile from Parquet, CSV or JSON Lines, in constant memory",
        example="remora reference build train.parquet --target label --out reference.json",
    )
    parser.add_argument("data", metavar="DATA", nargs="+", type=Path, help="files in order of time")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="profile to write")
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="rows are in no order of time: leave self-calibration out",
    )
    add_column_flags(parser)
    _add_build_flags(parser)
    add_json(parser)
    parser = add_command(
        group,
        "show",
        show,
        purpose="what a profile holds, what will be visible with it and what will not",
        example="remora reference show reference.json",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a profile")
    add_json(parser)
    parser = add_command(
        group,
        "merge",
        merge,
        purpose="one profile out of two of the same columns",
        example="remora reference merge january.json february.json --out both.json",
    )
    parser.add_argument("parts", metavar="FILE", nargs=2, type=Path, help="the two profiles")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="profile to write")
    add_json(parser)
    parser = add_command(
        group,
        "accept",
        accept,
        purpose="confirm the reference that a running agent has learnt from traffic",
        example="remora reference accept --token-file operator.token",
    )
    add_admin(parser)
    add_json(parser)
    _add_import(group)
    _add_signing(group)


def _add_import(group: Subparsers) -> None:
    parser = add_command(
        group,
        "import",
        import_,
        purpose="a profile out of a SageMaker Model Monitor baseline (statistics.json)",
        example="remora reference import statistics.json --out reference.json",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="statistics.json")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="profile to write")
    parser.add_argument("--tick-rows", metavar="N", type=positive, default=1_000, help="per tick")
    add_json(parser)


def _add_build_flags(parser: argparse.ArgumentParser) -> None:
    add_argument = parser.add_argument
    add_argument(
        "--segment", metavar="COL", help="watch each value of this column, at most 20, by itself"
    )
    add_argument(
        "--seasonality",
        choices=SEASONALITY,
        default="auto",
        help="compare hours of the day or week with each other (default auto: where it lets more"
        " be seen; needs --timestamp and two cycles)",
    )
    add_argument(
        "--like",
        metavar="FILE",
        type=Path,
        help="with the bins of this profile, so that parts merge exactly",
    )
    add_argument("--sign-key", metavar="FILE", type=Path, help="sign with the key in this file")


def _add_signing(group: Subparsers) -> None:
    for name, run, purpose in (
        ("sign", sign, "sign a profile with a secret key (HMAC-SHA256)"),
        ("verify", verify, "say whether a profile was signed with this key; exit 1 if not"),
    ):
        parser = add_command(
            group,
            name,
            run,
            purpose=purpose,
            example=f"remora reference {name} reference.json --key-file reference.key",
        )
        parser.add_argument("file", metavar="FILE", type=Path, help="a profile")
        parser.add_argument(
            "--key-file", metavar="K", type=Path, required=True, help="16 bytes or more"
        )
        add_json(parser)


def build(args: argparse.Namespace) -> int:
    """Reads the rows, writes the profile, says what it is good for."""
    from agent.cli.reference_rows import build_from_files
    from agent.cli.reference_sight import present

    key = None if args.sign_key is None else read_key(args.sign_key)
    with progress("reading") as advance:
        built = build_from_files(args, advance)
    reference = built.reference if key is None else built.reference.sign(key)
    write_whole(args.out, reference.to_bytes())
    for note in built.notes:
        print(plain(note), file=sys.stderr)
    present(reference, args.json, heading={"written to": str(args.out)})
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints a profile."""
    from agent.cli.reference_sight import present

    present(read_reference(args.file), args.json, heading={"file": str(args.file)})
    return 0


def merge(args: argparse.Namespace) -> int:
    """Merges two profiles."""
    from agent.cli.reference_sight import present
    from detectors import ProfileError
    from detectors import merge as merged
    from detectors.references.merging import dropped

    first, second = (read_reference(part) for part in args.parts)
    try:
        reference = merged(first, second)
    except ProfileError as error:
        raise BadInputError(f"{args.parts[0]} and {args.parts[1]}: {error}") from None
    write_whole(args.out, reference.to_bytes())
    for what in dropped(first, second):
        print(
            f"not in the merged profile: {plain(what)}: build the parts with one layout by --like",
            file=sys.stderr,
        )
    present(reference, args.json, heading={"written to": str(args.out)})
    return 0


def import_(args: argparse.Namespace) -> int:
    """Takes over what another monitor's baseline says."""
    import json

    from agent.cli.reference_sight import present
    from detectors import ProfileError
    from detectors.references.sagemaker_baseline import reference_of_statistics

    try:
        tree = json.loads(args.file.read_bytes())
        reference, left_out = reference_of_statistics(tree, tick_rows=args.tick_rows)
    except OSError as error:
        raise BadInputError(f"{args.file}: cannot be read ({error.strerror})") from None
    except (ProfileError, ValueError, RecursionError) as error:
        raise BadInputError(f"{args.file}: {error}") from None
    write_whole(args.out, reference.to_bytes())
    for name, why in left_out.items():
        print(f"{plain(name)}: {plain(why)}", file=sys.stderr)
    present(reference, args.json, heading={"written to": str(args.out)})
    return 0


def accept(args: argparse.Namespace) -> int:
    """Asks the agent to take its learnt reference for good."""
    answer = AdminClient(args).post("/api/v1/reference/accept", {})
    if args.json:
        print_json(answer)
    else:
        print("accepted: from now on drift from this reference counts")
    return 0


def sign(args: argparse.Namespace) -> int:
    """Signs a profile in its place."""
    reference = read_reference(args.file).sign(read_key(args.key_file))
    write_whole(args.file, reference.to_bytes())
    if args.json:
        print_json({"digest": reference.digest, "signature": reference.signature})
    else:
        print(f"signed: {plain(args.file)}, digest {reference.digest}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Checks a profile's signature."""
    reference = read_reference(args.file)
    good = reference.signed_with(read_key(args.key_file))
    if args.json:
        print_json({"digest": reference.digest, "signed": good})
    elif good:
        print(f"signed with this key: {plain(args.file)}, digest {reference.digest}")
    else:
        why = "is not signed" if reference.signature is None else "was signed with another key"
        print(f"not signed with this key: {plain(args.file)} {why}")
    return 0 if good else 1


def read_key(path: Path) -> bytes:
    """The key in a file, without the line end. Raises BadInputError naming file and mend."""
    from detectors.reference import KEY_BYTES_MIN

    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from None
    key = key.rstrip(b"\r\n")
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise BadInputError(
            f"{path}: holds a key of {len(key)} bytes: make one by: openssl rand -hex 32"
        )
    return key
