"""The reference that the configuration names, taken only if it is signed where a key is named."""

from agent.config.detection import ReferenceConfig
from detectors import ProfileError, Reference


def configured_reference(config: ReferenceConfig) -> Reference | None:
    """The profile of `reference.path`; None where there is none.

    Raises `OSError` for a file that cannot be read, `ProfileError` for a profile that is none, or
    is not signed with the key of `reference.key_file`.
    """
    if config.path is None:
        return None
    reference = Reference.from_bytes(config.path.read_bytes())
    if config.key_file is None:
        return reference
    try:
        signed = reference.signed_with(config.key_file.read_bytes().strip())
    except ValueError as error:  # too short for a key
        raise ProfileError(f"{config.key_file}: {error}") from None
    if not signed:
        raise ProfileError(
            f"{config.path}: is not signed with the key of {config.key_file}: sign it by "
            "`remora reference sign`"
        )
    return reference
