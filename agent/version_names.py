"""What a digest of the registry is called, and the profile that its artifact carries."""

from agent.release_rules import reference_in
from detectors import Reference
from retrain.registry import Registry


class VersionNames:
    """Labels of versions; a digest's label never changes, so each is looked up once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._labels: dict[str, str] = {}

    def label(self, digest: str) -> str:
        """The version label of a digest: what metrics and routes call it."""
        label = self._labels.get(digest)
        if label is None:
            version = self._registry.version(digest)
            if version is None:
                return digest[:19]
            label = self._labels[digest] = version.label
        return label

    def reference_of(self, digest: str | None) -> Reference | None:
        """The profile that the artifact of a version carries, if it has one."""
        version = None if digest is None else self._registry.version(digest)
        return None if version is None else reference_in(version)

    def names(self, digest: str, name: str) -> bool:
        """Whether people may mean this digest by `name`."""
        return name in (digest, self.label(digest))
