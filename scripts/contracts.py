"""Writes the contracts: what the HTTP routes and the events are, for other programs.

python -m scripts.contracts            writes docs/contracts/openapi.json and asyncapi.json
python -m scripts.contracts --check    says which of them is out of date, and exits with 1
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from services.up import compose
from shared.contracts import asyncapi
from shared.settings import Settings
from shared.web import openapi

FOLDER = Path(__file__).parents[1] / "docs" / "contracts"


def contracts() -> dict[str, dict[str, Any]]:
    """File → what it says, of all services in their standard settings, with a webhook."""
    runtime = compose(settings())
    return {
        "openapi.json": openapi.document(runtime.groups),
        "asyncapi.json": asyncapi.document(runtime.parties, runtime.kernel.bus.topology),
    }


def settings() -> Settings:
    """The standard ones, and whatever more makes a service."""
    secret = f"whsec_{b64encode(bytes(24)).decode()}"
    return Settings(
        _env_file=None, webhook_url=SecretStr("https://example.com"), webhook_secret=SecretStr(secret)
    )


def main(arguments: list[str]) -> int:
    written = {
        FOLDER / name: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in contracts().items()
    }
    stale = [path for path, text in written.items() if not _holds(path, text)]
    if "--check" in arguments:
        for path in stale:
            print(f"contracts: {path.name} is out of date: python -m scripts.contracts", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(written[path], encoding="utf-8")
        print(f"{path.name} written")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
