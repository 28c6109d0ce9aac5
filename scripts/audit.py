"""Known holes in the pinned packages, without a connection: `scripts/audit FOLDER`.

FOLDER is a clone of https://github.com/pypa/advisory-database, whose format is that of
https://ossf.github.io/osv-schema. Each version of `requirements.lock` is compared with what is affected;
nothing is asked of anybody. Ends with 1 where something is, and with 2 where FOLDER is not such a clone.
What the clone does not know yet is not found: its newest advisory is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

DATABASE = "https://github.com/pypa/advisory-database"
LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"


def pinned(lock: Path) -> dict[str, Version]:
    """Names and versions of the packages in a lock file."""
    lines = (line.split("#")[0].strip() for line in lock.read_text().splitlines())
    found = {}
    for requirement in map(Requirement, filter(None, lines)):
        [pin] = requirement.specifier
        found[str(canonicalize_name(requirement.name))] = Version(pin.version)
    return found


def advisories(folder: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """What the clone knows of a package, but for what was withdrawn."""
    for file in sorted((folder / "vulns" / name).glob("*.yaml")):
        advisory = yaml.load(file.read_text(), yaml.CSafeLoader)
        if "withdrawn" not in advisory:
            yield advisory


def is_affected(version: Version, affected: Mapping[str, Any]) -> bool:
    """Whether a version is one of those listed, or in a range of versions."""
    return any(_parsed(one) == version for one in affected.get("versions", ())) or any(
        _within(version, events["events"])
        for events in affected.get("ranges", ())
        if events["type"] == "ECOSYSTEM"
    )


def _within(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    """The schema's own rule: events in the order of their versions, the last that applies decides."""
    inside = False
    for kind, at in sorted((_at(*next(iter(event.items()))) for event in events), key=lambda event: event[1]):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _at(kind: str, version: str) -> tuple[str, Version]:
    return kind, _parsed(version) or Version("0")


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:  # of before the rules for versions: nothing that is pinned
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help=f"a clone of {DATABASE}")
    folder = parser.parse_args().folder
    if not (folder / "vulns").is_dir():
        print(f"{folder} has no folder vulns: give a clone of {DATABASE}", file=sys.stderr)
        return 2
    packages, known, newest, holes = pinned(LOCK), 0, "", []
    for name, version in packages.items():
        for advisory in advisories(folder, name):
            known, newest = known + 1, max(newest, str(advisory["modified"]))
            if any(is_affected(version, one) for one in advisory["affected"]):
                holes.append(f"{name} {version}: {advisory['id']} {', '.join(advisory.get('aliases', ()))}")
    print(*holes, sep="\n", end="\n" if holes else "")
    looked = f"{len(packages)} packages, {known} advisories on them, the newest changed on {newest[:10]}"
    print(f"{looked}: {len(holes)} of them tell of a pinned version")
    return bool(holes)


if __name__ == "__main__":
    sys.exit(main())
