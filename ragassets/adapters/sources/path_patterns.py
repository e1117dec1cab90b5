"""Which paths of a source are wanted: the same patterns for folders, buckets and sites."""

from collections.abc import Sequence

from wcmatch import glob


class PathPatterns:
    """Glob patterns over paths relative to a source, with slashes and without percent-encoding.

    Hidden files and folders are left out unless a pattern of `include` names their dot.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        """Remember the patterns.

        Args:
            include: `**` for any depth; one must match.
            exclude: Patterns of paths to leave out.
        """
        self._include = [pattern.removeprefix("./") for pattern in include]
        self._exclude = [pattern.removeprefix("./") for pattern in exclude]

    def wants(self, path: str) -> bool:
        """Whether a path is let through."""
        included = glob.globmatch(path, self._include, flags=glob.GLOBSTAR)
        return included and not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Whether a path is left out by a pattern of `exclude`."""
        return bool(self._exclude) and glob.globmatch(
            path, self._exclude, flags=glob.GLOBSTAR | glob.DOTGLOB
        )
