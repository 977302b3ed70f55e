"""The bill of materials of the image in CycloneDX 1.6, and a check that no licence surprises: `make sbom`.

    python -m scripts.sbom > dist/lakehouse.cdx.json

Python packages come from requirements-runtime.lock, jars from lakehouse/jars.lock.json, licences from the metadata of
the installed packages. A jar says its licence in its POM, which is not installed: OF_JARS has them as its publisher
states them, and a publisher that is not in it is a surprise.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)", re.MULTILINE)

ALLOWED = frozenset(
    {
        "Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSD", "0BSD", "ISC", "MPL-2.0", "PSF-2.0",
        "Zlib", "Unlicense", "CC0-1.0", "HPND", "MIT-CMU", "LGPL-2.1-or-later", "BlueOak-1.0.0",
    }
)  # fmt: skip
"""Licences, by their SPDX names, under which the image's parts may come."""

OF_JARS = {
    "org.apache.commons": "Apache-2.0", "org.apache.kafka": "Apache-2.0", "org.apache.spark": "Apache-2.0",
    "org.apache.logging.log4j": "Apache-2.0", "io.delta": "Apache-2.0", "io.unitycatalog": "Apache-2.0",
    "com.globalmentor": "Apache-2.0", "org.hdrhistogram": "BSD-2-Clause", "net.sourceforge.argparse4j": "MIT",
    "com.github.ben-manes.caffeine": "Apache-2.0", "commons-beanutils": "Apache-2.0",
    "commons-collections": "Apache-2.0", "commons-digester": "Apache-2.0", "commons-logging": "Apache-2.0",
    "commons-validator": "Apache-2.0", "com.dynatrace.hash4j": "Apache-2.0", "com.fasterxml.jackson.core": "Apache-2.0",
    "com.fasterxml.jackson.dataformat": "Apache-2.0", "com.fasterxml.jackson.datatype": "Apache-2.0",
    "net.sf.jopt-simple": "MIT", "org.bitbucket.b_c": "Apache-2.0", "org.jspecify": "Apache-2.0",
    "at.yawk.lz4": "Apache-2.0", "com.yammer.metrics": "Apache-2.0", "org.pcollections": "MIT",
    "com.google.re2j": "BSD-3-Clause", "org.scala-lang": "Apache-2.0", "com.typesafe.scala-logging": "Apache-2.0",
    "org.slf4j": "MIT", "org.yaml": "Apache-2.0", "org.xerial.snappy": "Apache-2.0", "com.github.luben": "BSD-2-Clause",
}  # fmt: skip
"""Publisher of a jar → the licence that it states."""

_SPOKEN = (
    (r"apache", "Apache-2.0"),
    (r"mpl|mozilla", "MPL-2.0"),
    (r"mit-0", "MIT-0"),
    (r"mit-cmu|hpnd|historical permission", "MIT-CMU"),
    (r"bsd.?3|3-clause|new bsd|modified bsd", "BSD-3-Clause"),
    (r"bsd.?2|2-clause|simplified bsd", "BSD-2-Clause"),
    (r"\bmit\b", "MIT"),
    (r"\bbsd\b", "BSD"),
    (r"python software foundation|\bpsf\b|python-2", "PSF-2.0"),
    (r"\bisc\b", "ISC"),
    (r"lgpl", "LGPL-2.1-or-later"),
    (r"unlicense|public domain", "Unlicense"),
    (r"zlib", "Zlib"),
)
"""How packages spell their licence → its SPDX name; the first that fits counts."""


def locked(lock: Path) -> dict[str, str]:
    """Name → version of every package in a lock file."""
    return dict(_LOCKED.findall(lock.read_text()))


def licence(package: str) -> str | None:
    """The SPDX name or expression of an installed package's licence; None where it is not installed or says nothing."""
    try:
        about = metadata(package)
    except PackageNotFoundError:
        return None
    stated = about.get("License-Expression")
    if stated:
        return str(stated)
    classifiers = [line.rpartition("::")[2] for line in about.get_all("Classifier") or [] if line.startswith("License")]
    for text in (*classifiers, str(about.get("License") or "")[:200]):
        for pattern, name in _SPOKEN:
            if re.search(pattern, text, re.IGNORECASE):
                return name
    return None


def surprises(project: Path = PROJECT) -> list[str]:
    """What is wrong with the licences of the installed packages among those that the image has."""
    found = []
    for package in locked(project / "requirements-runtime.lock"):
        try:
            version(package)
        except PackageNotFoundError:
            continue  # for another system or another Python
        stated = licence(package)
        if stated is None:
            found.append(f"{package}: its licence is not known")
        elif not _is_allowed(stated):
            found.append(f"{package}: {stated} is not among those that are allowed")
    return found + [
        f"{jar['org']}:{jar['name']}: its licence is not known or not among those that are allowed"
        for jar in _jars(project)
        if OF_JARS.get(jar["org"]) not in ALLOWED
    ]


def _jars(project: Path) -> list[dict[str, str]]:
    """Every jar of the lock, once."""
    jars: list[dict[str, str]] = json.loads((project / "lakehouse" / "jars.lock.json").read_text())
    return list({(jar["org"], jar["name"], jar["rev"]): jar for jar in jars}.values())


def _is_allowed(expression: str) -> bool:
    """Whether one alternative of an SPDX expression has allowed parts only."""
    plain = re.sub(r"[()]", " ", expression)
    return any(
        all(part.split(" WITH ")[0].strip() in ALLOWED for part in alternative.split(" AND "))
        for alternative in plain.split(" OR ")
    )


def bill(project: Path = PROJECT) -> dict[str, Any]:
    """The bill of materials."""
    components: list[dict[str, Any]] = []
    for name, found in sorted(locked(project / "requirements-runtime.lock").items()):
        component = {"type": "library", "name": name, "version": found, "purl": f"pkg:pypi/{name}@{found}"}
        stated = licence(name)
        components.append(component | ({"licenses": [{"expression": stated}]} if stated in ALLOWED - {"BSD"} else {}))
    for jar in _jars(project):
        component = {
            "type": "library",
            "group": jar["org"],
            "name": jar["name"],
            "version": jar["rev"],
            "purl": f"pkg:maven/{jar['org']}/{jar['name']}@{jar['rev']}?type=jar",
        }
        stated = OF_JARS.get(jar["org"])
        hashes = [{"alg": "SHA-256", "content": jar["sha256"]}]
        components.append(component | {"hashes": hashes} | ({"licenses": [{"expression": stated}]} if stated else {}))
    subject = {"type": "application", "name": "lakehouse", "version": version("lakehouse")}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }


def main() -> None:
    """Print the bill; exit 1 where a licence surprises."""
    problems = surprises()
    sys.stdout.write(json.dumps(bill(), indent=1) + "\n")
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
