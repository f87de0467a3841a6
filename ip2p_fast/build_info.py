"""What the last build of the extension came to, and why. Needs no torch: `ip2p-fast info` prints it on any install."""

from __future__ import annotations

import json
from pathlib import Path

RECORD = Path(__file__).with_name("_build.json")  # written by setup.py


def build_info() -> dict[str, str]:
    """{"extension": "cuda" | "cpu" | "none", "why": one line}, as setup.py recorded it at installation."""
    try:
        record = json.loads(RECORD.read_text())
        return {"extension": str(record["extension"]), "why": str(record["why"])}
    except FileNotFoundError:
        return {"extension": "none", "why": "the package was not built by its setup.py: run pip install ."}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"extension": "none", "why": f"{RECORD.name} cannot be read: {error}"}
