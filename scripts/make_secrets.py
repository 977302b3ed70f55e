"""Makes the secrets of docker-compose.yml as files under deploy/secrets, each once: `make secrets`.

The folder is its owner's alone; the files in it can be read by the containers' users, to whom they are mounted.
"""

from __future__ import annotations

import secrets
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "secrets"
NAMES = {"s3_access_key": 12, "s3_secret_key": 30, "grafana_password": 18}
"""Name of the file → random bytes in it."""


def make(folder: Path = FOLDER) -> list[str]:
    """Write those that are not there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    missing = [name for name in NAMES if not (folder / name).exists()]
    for name in missing:
        (folder / name).write_text(secrets.token_urlsafe(NAMES[name]))
        (folder / name).chmod(0o644)
    return missing


if __name__ == "__main__":
    made = make()
    print(f"made {', '.join(made)} in {FOLDER}" if made else f"{FOLDER} has every secret")
