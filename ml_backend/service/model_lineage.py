"""What networks were made from, up to their base, and what that makes of their licences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ml_backend.learning import Version
from ml_backend.model_files.known import CELLPOSE_LICENCE, CELLPOSE_MODELS, built_in_networks
from ml_backend.model_files.licences import never_laxer


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What one network was made from."""

    names: tuple[str, ...]  # the nearest first, the base last
    licence: str  # never laxer than that of any of them


class Lineages:
    """The lineages of versions; made anew for each look, since versions come and go."""

    def __init__(self, versions: Iterable[Version]) -> None:
        self._by_name: dict[str, list[Version]] = {}
        for version in versions:
            self._by_name.setdefault(version.name, []).append(version)
        self._licences = {network.name: network.licence for network in built_in_networks()}
        self._licences |= dict.fromkeys(CELLPOSE_MODELS, CELLPOSE_LICENCE)

    def has_namesake(self, version: Version) -> bool:
        """Return whether another version or a built-in network has the same name."""
        return len(self._by_name.get(version.name, ())) > 1 or version.name in self._licences

    def of(self, version: Version) -> Lineage:
        """Return what `version` was made from, as far as it is known."""
        names: list[str] = []
        licence = version.component.licence
        child: Version | None = version
        seen = {id(version)}
        while child is not None and child.parent:
            names.append(child.parent)
            if child.parent in self._licences:
                licence = never_laxer(licence, self._licences[child.parent])
                break
            child = self._parent_of(child)
            if child is None or id(child) in seen:
                break
            seen.add(id(child))
            licence = never_laxer(licence, child.component.licence)
        return Lineage(names=tuple(names), licence=licence)

    def _parent_of(self, child: Version) -> Version | None:
        found = self._by_name.get(child.parent, [])
        of_same_project = [one for one in found if one.project == child.project]
        if of_same_project:
            return of_same_project[0]
        return found[0] if len(found) == 1 else None
