"""What extras of a pyproject.toml ask for, one requirement a line: requirements.py PYPROJECT EXTRA[,EXTRA...]"""

import re
import sys
from pathlib import Path

import tomllib


def main(path: str, extras: str) -> None:
    project = tomllib.loads(Path(path).read_text())["project"]
    found = dict.fromkeys(project["dependencies"])
    for extra in extras.split(","):
        found |= dict.fromkeys(_expanded(project, extra))
    print("\n".join(found))


def _expanded(project: dict, extra: str) -> list[str]:
    """An extra may name others: package[one,two]."""
    found = []
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(re.escape(project["name"]) + r"\[(.*)\]", requirement)
        if own:
            found += [each for other in own[1].split(",") for each in _expanded(project, other)]
        else:
            found.append(requirement)
    return found


main(*sys.argv[1:])
