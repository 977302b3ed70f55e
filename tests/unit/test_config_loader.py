"""Loading a pipeline file: what comes out of a right one, and the whole message for a wrong one."""

from __future__ import annotations

import pickle
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lakehouse.config import wording
from lakehouse.config.loader import load_pipeline, show
from lakehouse.config.models import Pipeline, ProcessingTime, format_duration, parse_duration
from lakehouse.errors import ConfigError
from lakehouse.validation import validate_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
BROKEN = Path(__file__).parent / "broken_configs"
CANARY = "canary-7f3a"
ENVIRONMENT = {"KAFKA_SERVER": "x:1"}
MINIMAL = """\
name: clicks
source:
  servers: localhost:9092
  topic: clicks
  fields: {at: timestamp, page: string, user_id: long}
event_time: {column: at}
quality: {suite: suites/clicks.json}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "clicks.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def message(file: Path, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file, env or {})
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(path.name for path in BROKEN.glob("*.yaml")))
def test_each_broken_file_gets_the_message_in_its_last_comment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    expected = [line[2:] for line in Path(name).read_text().split("# expected:\n")[1].splitlines()]

    try:
        load_pipeline(Path(name), ENVIRONMENT)
    except ConfigError as error:
        found = str(error)
    else:
        report = validate_pipeline(Path(name), ENVIRONMENT, online=False)
        (found,) = (check.detail for check in report.checks if check.status == "error")

    assert found.replace(str(BROKEN), "{folder}").split("\n") == expected


def test_a_secret_is_in_no_message_representation_or_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    assert CANARY in Path("secret.txt").read_text()

    with pytest.raises(ConfigError) as caught:
        load_pipeline(Path("secret_in_error_position.yaml"), {})

    whole = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=False).format())
    assert CANARY not in whole + repr(caught.value) + repr(caught.value.__context__)
    assert caught.value.__context__ is None


def test_a_secret_from_a_file_reaches_the_option_and_nothing_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{CANARY}\n")
    option = f'"user=\\"u\\" password=\\"${{file:{tmp_path}/password}}\\""'
    file = write(tmp_path, MINIMAL.replace("  topic:", f"  options: {{sasl.jaas.config: {option}}}\n  topic:"))

    pipeline = load_pipeline(file, {})

    secret = pipeline.source.options["sasl.jaas.config"]
    assert secret.get_secret_value() == f'user="u" password="{CANARY}"'
    assert CANARY not in repr(pipeline) + str(pipeline) + show(pipeline) + pipeline.model_dump_json()


def test_a_minimal_file_is_completed_with_defaults(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, MINIMAL), {})

    assert pipeline.trigger == ProcessingTime()
    assert pipeline.event_time.max_future == timedelta(minutes=5)
    assert pipeline.source.fields["user_id"].type == "long"
    assert pipeline.rollups == {}
    assert not pipeline.tables.bronze


def test_paths_are_relative_to_the_file_but_the_root_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path.parent)

    pipeline = load_pipeline(Path(tmp_path.name) / "clicks.yaml", {})

    assert pipeline.quality.suite == tmp_path.resolve() / "suites" / "clicks.json"
    assert pipeline.root == "./data"


@pytest.mark.parametrize("root", ["s3://bucket/prefix", "/data", "~/data", "./data"])
def test_a_root_stays_as_it_is_written(tmp_path: Path, root: str) -> None:
    assert load_pipeline(write(tmp_path, f"{MINIMAL}root: ${{R}}\n"), {"R": root}).root == root


def test_a_loaded_pipeline_can_be_pickled(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, MINIMAL), {})
    assert pickle.loads(pickle.dumps(pipeline)) == pipeline  # noqa: S301 - our own bytes


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    pipeline = load_pipeline(PROJECT / "conf" / "feature_events.yaml", {})
    assert load_pipeline(write(tmp_path, show(pipeline)), {}) == pipeline


def test_environment_variables_become_numbers_booleans_and_durations(tmp_path: Path) -> None:
    text = MINIMAL.replace("  topic: clicks", "  topic: ${T}\n  max_records_per_batch: ${N}")
    text = text.replace("{column: at}", "{column: at, max_future: '${D:-7s}'}") + "tables: {bronze: '${B}'}\n"

    pipeline = load_pipeline(write(tmp_path, text), {"T": "t.1", "N": "17", "B": "true"})

    assert pipeline.source.topic == "t.1"
    assert pipeline.source.max_records_per_batch == 17
    assert pipeline.tables.bronze is True
    assert pipeline.event_time.max_future == timedelta(seconds=7)


def test_a_wrong_value_from_the_environment_is_not_quoted(tmp_path: Path) -> None:
    text = MINIMAL.replace("  topic: clicks", "  topic: clicks\n  max_records_per_batch: ${N}")
    assert 'max_records_per_batch is "${N}", but' in message(write(tmp_path, text), {"N": CANARY})


def test_options_may_be_numbers_and_booleans(tmp_path: Path) -> None:
    options = "  options: {session.timeout.ms: 30000, check.crcs: true, ratio: 0.5}\n"
    pipeline = load_pipeline(write(tmp_path, MINIMAL.replace("  topic:", f"{options}  topic:")), {})
    values = {name: secret.get_secret_value() for name, secret in pipeline.source.options.items()}
    assert values == {"session.timeout.ms": "30000", "check.crcs": "true", "ratio": "0.5"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("2026-01-31", "2026-01-31"),
        ("1:30", "1:30"),
        ("12_000", "12_000"),
        ("!!str 7", "7"),
        ("&a x", "x"),
        ("$5 a $$ b", "$5 a $ b"),
    ],
)
def test_plain_words_that_older_yaml_would_twist_stay_text(tmp_path: Path, written: str, read: str) -> None:
    text = MINIMAL.replace("page: string", f"page: {{type: string, description: {written}}}")
    assert load_pipeline(write(tmp_path, text), {}).source.fields["page"].description == read


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    rollup = "{dimensions: &d [page]}"
    text = f"{MINIMAL}rollups:\n  one: {rollup}\n  two: {{dimensions: *d}}\n"
    rollups = load_pipeline(write(tmp_path, text), {}).rollups
    assert rollups["one"] == rollups["two"]


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "repeats or nests its parts without end" in message(write(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty\n  where: clicks.yaml"),
        (b"# nothing\n", "the file is empty"),
        (b"a: b\nc: \xff\n", "the file is not UTF-8 text\n  where: clicks.yaml, line 2"),
        (b"a: b\nc: \x07\n", "an invisible control character stands here\n  where: clicks.yaml, line 2, column 4"),
        (b"a: [" * 2000, "the file is nested too deeply"),
        (b"just words", "the file is not made of keys and values"),
        (b"a: b\n---\nc: d\n", "a second document begins here (`---`)\n  where: clicks.yaml, line 2"),
        (b"a: b: c\n", "a second `:` stands in this line"),
        (b"a: [b, c\nd: e\n", "a list or group in brackets is not closed"),
        (b"a:\n  - b\n c: d\n", "the indentation does not fit the lines above\n  where: clicks.yaml, line 3"),
        (b"a: *b\n", "an alias (`*name`) has no anchor"),
        (b"a: @b\n", "a text may not begin with this character"),
        (b'a: "\\q"\n', "an unknown escape in double quotes"),
        (b"a: b\nword\nc: d\n", "a key without `:`"),
        (b"%YAML 9.9.9\na: b\n", "this line is not valid YAML"),
        (b"? [a]\n: b\n", "a key has to be a word"),
        (b"name: !!python/object:x {}\n", "has to be text"),
        (b"name: !secret x\n", "the tag !secret means nothing here"),
        (b"name: !!int x\n", "this is no int, as its tag says"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    (tmp_path / "clicks.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert expected in message(Path("clicks.yaml"))


def test_a_secret_in_place_of_the_options_is_not_quoted(tmp_path: Path) -> None:
    text = MINIMAL.replace("  topic:", f"  options: {CANARY}\n  topic:")
    assert message(write(tmp_path, text)).startswith("source.options is a value that is kept secret, but has to be")


def test_a_parser_error_does_not_quote_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace("  topic:", f"  options: {{a: {CANARY}: x}}\n  topic:")
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file, {})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_not_there_is_told_with_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message(Path("a.yaml")) == "there is no file a.yaml\n  to do: correct the path"
    write(tmp_path, MINIMAL)
    assert message(Path("a.yaml")) == "there is no file a.yaml\n  to do: in . there are: clicks.yaml"
    assert message(Path("no/a.yaml")) == "there is no file no/a.yaml\n  to do: correct the path"
    assert message(tmp_path) == f"{tmp_path} is a folder\n  to do: name a file in it: clicks.yaml"
    assert message(tmp_path / "clicks.yaml" / "x") == (
        f"the file cannot be read: Not a directory\n  where: {tmp_path}/clicks.yaml/x\n  to do: check its rights"
    )


WRONG: list[Any] = [None, True, 7, 1.5, "", "x y", "~", [], {}, [None], {"a": None}, [[]], "${", 10**25, float("nan")]


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a nested value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, step))


def replaced(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def test_any_wrong_value_anywhere_gives_a_message_for_people(tmp_path: Path) -> None:
    whole = yaml.safe_load(show(load_pipeline(write(tmp_path, MINIMAL), {}))) | {
        "rollups": {
            "r": {
                "dimensions": ["page"],
                "metrics": [
                    {"name": "a", "type": "count", "where": {"page": ["x"]}},
                    {"name": "b", "type": "sum", "column": "user_id"},
                    {"name": "c", "type": "quantiles", "column": "user_id", "k": 200},
                    {"name": "d", "type": "distinct", "column": "page", "lg_k": 12},
                ],
            }
        }
    }
    whole["source"]["options"] = {"client.id": "x"}
    foreseen = set()
    for path in places(whole):
        for wrong in WRONG:
            file = write(tmp_path, yaml.safe_dump(replaced(whole, path, wrong)))
            try:
                load_pipeline(file, {})
            except ConfigError as error:
                text = str(error)
                foreseen.add(text.split("\n", maxsplit=1)[0])
                assert wording._UNFORESEEN[0] not in text, text
                assert "line " in text
                assert "Input should" not in text
                assert "pydantic" not in text
    assert len(foreseen) > 100


@pytest.mark.parametrize("text", ["250ms", "1s", "5m", "6h", "30d", "0ms", "90s", " 7 d "])
def test_durations_survive_being_written(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)
    assert parse_duration("1500ms") == timedelta(seconds=1.5)


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-1s", "1.5s", "36501d", "9" * 15 + "d", "٣s", 5, None])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_the_models_are_frozen() -> None:
    pipeline = load_pipeline(PROJECT / "conf" / "feature_events.yaml", {})
    with pytest.raises(ValueError, match="frozen"):
        pipeline.name = "x"  # type: ignore[misc]  # that is the point
    assert isinstance(pipeline, Pipeline)
