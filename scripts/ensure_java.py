"""Make sure that there is a Java for Spark and Kafka: this machine's own, else one from PyPI, into .venv only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lakehouse.errors import EnvironmentProblem
from lakehouse.java import find_java

LOCK = Path(__file__).parent.parent / "requirements-java.lock"


def main() -> int:
    """Exit code 0 where Java 17 or newer is there in the end, else 2 and one sentence that says what to install."""
    try:
        find_java()
    except EnvironmentProblem:
        print("     no Java found; installing one into .venv", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK)]
        subprocess.run(command, check=False)
        # In a process of its own: this one has looked already, and remembers.
        found = subprocess.run([sys.executable, "-c", "from lakehouse.java import find_java; find_java()"], check=False)
        if found.returncode:
            print(
                "Java 17 or newer is needed: install one, such as OpenJDK 17, or set JAVA_HOME.",
                file=sys.stderr,
            )
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
