"""What `${…}` becomes, and what is said where it cannot be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.config.interpolation import Fault, interpolate

HERE = Path("/nowhere")


def replaced(text: str, env: dict[str, str] | None = None) -> str:
    found, faults = interpolate(text, env or {}, folder=HERE, secrets_allowed=False)
    assert faults == []
    return found


def faults_of(text: str, folder: Path = HERE, *, secrets_allowed: bool = True) -> list[Fault]:
    return interpolate(text, {"KAFKA": "k"}, folder=folder, secrets_allowed=secrets_allowed)[1]


@pytest.mark.parametrize(
    ("text", "env", "expected"),
    [
        ("plain", {}, "plain"),
        ("${A}", {"A": "1"}, "1"),
        ("x${A}y${B_2}z", {"A": "1", "B_2": "2"}, "x1y2z"),
        ("${A}", {"A": ""}, ""),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A:-d}", {"A": "1"}, "1"),
        ("${A:-}", {}, ""),
        ("${A:-a b:-c}", {}, "a b:-c"),
        ("$${A}", {"A": "1"}, "${A}"),
        ("$$$${A}", {}, "$${A}"),
        ("$$${A}", {"A": "1"}, "$1"),
        ("5 $, $5 and $", {}, "5 $, $5 and $"),
        ("${A}", {"A": "${B}", "B": "2"}, "${B}"),
        ("${A}", {"A": "$$"}, "$$"),
    ],
)
def test_text_is_replaced(text: str, env: dict[str, str], expected: str) -> None:
    assert replaced(text, env) == expected


def test_a_missing_variable_is_named_with_the_likely_one_and_a_way_out() -> None:
    assert faults_of("${KAFKAA}") == [
        Fault(
            "the environment variable KAFKAA is not set",
            "set KAFKAA (did you mean KAFKA?), or give a default: ${KAFKAA:-…}",
        )
    ]


def test_every_fault_of_a_text_is_told() -> None:
    whats = [fault.what for fault in faults_of("${A} ${B-c} $D ${} ${file:x} ${E", secrets_allowed=False)]
    assert whats == [
        "the environment variable A is not set",
        "${B-c} cannot be read",
        "$D is not replaced without braces",
        "${} cannot be read",
        "${file:x} would bring a secret to a place where it could be printed",
        "a `${` is not closed by `}`",
    ]


def test_braces_inside_a_reference_are_refused() -> None:
    assert [fault.what for fault in faults_of("${A:-{}}")] == ["a `${` is not closed by `}`"]


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s", "s"),
        (b"s\n", "s"),
        (b"s\r\n", "s"),
        (b"s\n\n", "s\n"),
        (b" s ", " s "),
        ("ß".encode(), "ß"),
        (b"${A}", "${A}"),
    ],
)
def test_a_secret_loses_only_the_line_break_at_its_end(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "s").write_bytes(content)
    for reference in ("${file:s}", f"${{file:{tmp_path}/s}}"):
        assert interpolate(f"<{reference}>", {}, folder=tmp_path, secrets_allowed=True) == (f"<{secret}>", [])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no file {} to take a secret from"),
        (b"", "the secret in {} is empty"),
        (b"\n", "the secret in {} is empty"),
        (b"canary\xff", "the secret in {} is not UTF-8 text"),
        (b"canary" * 11_000, "{} is larger than 64 KiB, which no secret is"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_by_its_file(tmp_path: Path, content: bytes | None, what: str) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    (fault,) = faults_of("${file:s}", tmp_path)
    assert fault.what == what.format(tmp_path / "s")
    assert "canary" not in fault.what + fault.remedy


def test_a_folder_or_an_impossible_name_is_no_secret(tmp_path: Path) -> None:
    assert [f.what for f in faults_of("${file:.}", tmp_path)] == [
        f"the secret in {tmp_path} cannot be read: Is a directory"
    ]
    assert "cannot be read: not a path" in faults_of("${file:a\0b}", tmp_path)[0].what


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert "larger than 64 KiB" in faults_of("${file:/dev/zero}")[0].what
