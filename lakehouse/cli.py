"""The `lakehouse` command. Each command only reads its arguments, calls one function and prints its answer.

Exit codes: 0 done; 1 failed, or a check found a difference; 2 wrong config or input; 75 try again later.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from lakehouse import storage
from lakehouse.errors import ConfigError, LakehouseError
from lakehouse.logs import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lakehouse.alerts.finding import Finding
    from lakehouse.config.models import Pipeline
    from lakehouse.maintenance.run import TableReport
    from lakehouse.quarantine import Choice

app = typer.Typer(
    name="lakehouse",
    help="Exactly-once Delta tables, data-quality routing, rollups and a live dashboard from one YAML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
broker_app = typer.Typer(help="A real Kafka broker on this machine, for demos and tests.", no_args_is_help=True)
quality_app = typer.Typer(help="What a suite means, and how good a pipeline's rows are by it.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Refused rows: what they are, why, and their way back.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure this machine, with everything running on it.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(bench_app, name="bench")
app.add_typer(quality_app, name="quality")
savepoint_app = typer.Typer(
    help="A named point across all tables: make it, come back to it, fork it.", no_args_is_help=True
)
app.add_typer(savepoint_app, name="savepoint")

PipelineFile = Annotated[Path, typer.Argument(metavar="PIPELINE", help="the pipeline's YAML file")]
DefaultPipelineFile = Annotated[Path, typer.Option("--pipeline", help="the pipeline's YAML file")]
Shape = Literal["life", "flat"]
Json = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]

_FROM = "first Kafka timestamp, such as 2026-01-31T12:00:00Z"
_TO = "Kafka timestamp where the range ends, exclusive"
_LAST = "instead of both: a duration up to now, such as 1h"
Rules = Annotated[list[str] | None, typer.Option("--rule", help="refused by this rule; again for any of several")]
Since = Annotated[str | None, typer.Option(help="Kafka time, inclusive: 2026-01-31T12:00, or a span before now: 2h")]
Until = Annotated[str | None, typer.Option(help="Kafka time, exclusive; as --since")]
Where = Annotated[list[str] | None, typer.Option(help="FIELD=VALUE of the event, where it is a JSON object")]

_ON_A_CLUSTER = "spark-submit --packages org.apache.hadoop:hadoop-aws:3.5.0 jobs/validate.py PIPELINE, with its AWS_*"
_DEFAULT_PIPELINE = Path("conf/feature_events.yaml")


def main() -> NoReturn:
    """Run the command line, and end the process with its exit code.

    It ends without taking the interpreter down. Threads of Arrow may still be closing the files of a table that was
    read, which needs Python; where that is on its way out, they abort the process after a right answer (exit code 134).
    """
    code = 0
    try:
        with exit_on_error():
            app()
    except SystemExit as end:
        code = int(end.code or 0)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn every expected failure into one readable message and a documented exit code."""
    level = os.environ.get("LAKEHOUSE_LOG", "warning").upper()
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    # Spark's bridge logs each exception that is reported here, with its traceback.
    logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
    try:
        storage.adopt_secret_files()
        yield
    except LakehouseError as error:
        typer.echo(f"error: {redact(str(error))}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def setup() -> None:
    """Fetch the Spark and Kafka jars and look for Java; nothing is done where all is in place."""
    from lakehouse.jars import GROUPS, ensure_jars
    from lakehouse.java import find_java

    java = find_java()
    for group in GROUPS:
        ensure_jars(group)
    typer.echo(f"Java: {java}\njars: in place")


@app.command()
def demo(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    rate: Annotated[float, typer.Option(help="events per second, on average")] = 2_000,
    seconds: Annotated[float | None, typer.Option(help="stop by itself after this long")] = None,
    seed: Annotated[int, typer.Option(help="seed of the load")] = 1,
    *,
    browser: Annotated[bool, typer.Option(help="open the dashboard in a browser")] = True,
) -> None:
    """Broker, load, pipeline and dashboard together, until Ctrl-C or for `--seconds`."""
    from lakehouse.demo import run_demo

    with stopping() as stop:
        run_demo(pipeline, rate=rate, seconds=seconds, seed=seed, browser=browser, stop=stop)


@app.command()
def run(
    pipeline: PipelineFile,
    *,
    as_json: Json = False,
    cores: Annotated[int | None, typer.Option(help="cores for Spark; all by default")] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="where a driver runs already, take its place as soon as it ends")
    ] = False,
) -> None:
    """Run a pipeline in this process, until Ctrl-C (or until it has caught up: trigger `available_now`)."""
    from lakehouse.driver import drive

    with stopping() as stop:
        drive(pipeline, load(pipeline), stop, cores=cores, as_json=as_json, standby=standby)


@app.command()
def produce(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    rate: Annotated[float, typer.Option(help="events per second, on average")] = 2_000,
    seconds: Annotated[float | None, typer.Option(help="stop after this long; for ever by default")] = None,
    seed: Annotated[int, typer.Option(help="the same seed makes the same events")] = 1,
    bad_share: Annotated[float, typer.Option(min=0, max=1, help="share of events with a fault")] = 0.02,
    late_share: Annotated[float, typer.Option(min=0, max=1, help="share of events that come late")] = 0.01,
    shape: Annotated[Shape, typer.Option(help="`life`: daily shape and bursts; `flat`: a constant rate")] = "life",
    *,
    as_json: Json = False,
) -> None:
    """Send a load that looks like life to the pipeline's topic: open loop, never slowed by who reads it."""
    from lakehouse.load.events import Generator
    from lakehouse.load.plan import Load
    from lakehouse.load.producer import produce as send

    described = load(pipeline)
    events, source = Generator.beside(pipeline, described), described.source
    plan = Load(events, rate=rate, seconds=seconds, seed=seed, bad_share=bad_share, late_share=late_share, shape=shape)
    options = {name: secret.get_secret_value() for name, secret in source.options.items()}
    with stopping() as stop:
        report = send(plan, source.servers, source.topic, stop=stop, client_options=options)
    show(report, as_json=as_json)


@app.command()
def validate(
    pipeline: PipelineFile,
    *,
    online: Annotated[bool, typer.Option(help="also ask Kafka for the topic")] = True,
    as_json: Json = False,
) -> None:
    """Check everything that can be checked without running: reads no record, writes nothing."""
    from lakehouse import embedded
    from lakehouse.validation import validate_pipeline

    report = validate_pipeline(pipeline, embedded.environment(), online=online)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def tables(
    root: Annotated[str, typer.Option(envvar="LAKEHOUSE_ROOT", help="folder or s3:// URL")] = "./data",
    *,
    as_json: Json = False,
) -> None:
    """List the tables under a root: version, files, rows, bytes, last commit."""
    from lakehouse.serving.tables import list_tables, render_tables

    found = list_tables(root)
    typer.echo(
        json.dumps([asdict(table) for table in found], default=str, indent=2) if as_json else render_tables(found)
    )


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="one SELECT over silver.*, quarantine.*, gold.*, bronze.*")],
    root: Annotated[str, typer.Option(envvar="LAKEHOUSE_ROOT", help="folder or s3:// URL")] = "./data",
    limit: Annotated[int, typer.Option(help="rows shown at most")] = 100,
    *,
    as_json: Json = False,
) -> None:
    """Ask the tables in SQL, by DuckDB; no JVM."""
    from lakehouse.serving.sql import query as ask
    from lakehouse.serving.sql import render

    answer = ask(root, sql, limit=limit)
    typer.echo(json.dumps(answer.to_pylist(), default=str) if as_json else render(answer))


@app.command()
def ask(
    pipeline: PipelineFile,
    rollup: Annotated[str, typer.Option(help="name of the rollup")],
    measure: Annotated[list[str], typer.Option(help="events, METRIC, METRIC@0.99 or METRIC/METRIC; again for more")],
    by: Annotated[list[str] | None, typer.Option(help="a dimension to split by; again for more")] = None,
    where: Annotated[list[str] | None, typer.Option(help="DIMENSION=VALUE; again for any of several")] = None,
    start: Annotated[str | None, typer.Option("--from", help="such as 2026-01-31T12:00:00Z")] = None,
    end: Annotated[str | None, typer.Option("--to", help="exclusive; now by default")] = None,
    last: Annotated[str | None, typer.Option(help="instead of both: a duration up to now, such as 1h")] = None,
    step: Annotated[str | None, typer.Option(help="width of the answer's windows, such as 1m")] = None,
    max_staleness: Annotated[str | None, typer.Option(help="exit 75 where the last batch is older than this")] = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="also say which tables answer which part")] = False,
    as_json: Json = False,
) -> None:
    """Ask a rollup's whole history: the coarsest grains that fit, hot tail included, sketches merged; no JVM."""
    from datetime import timedelta

    from lakehouse.serving.query import Measure, Query, Rollups, parse_filters, parse_range
    from lakehouse.serving.sql import render

    described = load(pipeline)
    first, until = parse_range(start, end, last)
    question = Query(
        rollup=rollup,
        measures=tuple(map(Measure.parse, measure)),
        start_us=first,
        end_us=until,
        step_us=None if step is None else round(duration(step) * 1_000_000),
        dimensions=tuple(by or ()),
        filters=parse_filters(described, rollup, where or ()),
        max_staleness=None if max_staleness is None else timedelta(seconds=duration(max_staleness)),
    )
    answer = Rollups(described).ask(question)
    typer.echo(json.dumps(answer.to_dict(), default=str) if as_json else render(answer.rows))
    if explain and not as_json:
        typer.echo(answer.explain())


@app.command()
def serve(
    pipeline: PipelineFile,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one")] = 8_600,
    address: Annotated[str, typer.Option(help="that it listens on; the default is reached from this machine alone")] = (
        "127.0.0.1"
    ),
    host: Annotated[list[str] | None, typer.Option(help="a name by which it may be asked; again for more")] = None,
    deadline: Annotated[str, typer.Option(help="how long a question may take")] = "10s",
) -> None:
    """Answer questions to the rollups over HTTP, as JSON or Arrow, until Ctrl-C; read only, no JVM."""
    from lakehouse.api.app import Limits
    from lakehouse.api.server import serve as answer

    limits = Limits(deadline_s=duration(deadline))
    with stopping() as stop:
        answer(
            load(pipeline),
            stop,
            address=address,
            port=port,
            hosts=host or (),
            limits=limits,
            on_start=lambda url: typer.echo(f"{url}/openapi.json"),
        )


@app.command()
def reconcile(pipeline: PipelineFile, *, as_json: Json = False) -> None:
    """Compare the topic with the tables: the missing, the doubled, the rollups against silver. Exit 1 if any differ."""
    from lakehouse import embedded
    from lakehouse.config.loader import load_pipeline
    from lakehouse.reconcile import reconcile as compare

    with embedded.borrowed() as environ:
        found = compare(load_pipeline(pipeline, environ))
    typer.echo(json.dumps(asdict(found) | {"ok": found.ok}, indent=2) if as_json else str(found))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def maintain(
    pipeline: PipelineFile,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell what a pass would do, and do nothing")] = False,
    every: Annotated[str | None, typer.Option(metavar="DURATION", help="go on, a pass every 10s, 5m, …")] = None,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Keep the tables small: merge files, checkpoint and clean the logs, delete files that nobody can read any more.

    Exit 1 where a table could not be maintained.
    """
    from lakehouse.maintenance.background import attach
    from lakehouse.maintenance.run import Maintainer, follow

    if attached:
        attach(sys.stdin.buffer)
    with stopping() as stop:
        loaded = load(pipeline)
        if every is not None:
            follow(loaded, duration(every), stop, lambda reports: tell(reports, as_json=as_json))
            return
        maintainer = Maintainer(loaded, stop=stop)
        reports = maintainer.plan() if dry_run else maintainer.maintain()
    tell(reports, as_json=as_json, idle=True)
    if any(report.error for report in reports):
        raise typer.Exit(1)


@app.command()
def alerts(
    pipeline: PipelineFile,
    *,
    once: Annotated[bool, typer.Option("--once", help="evaluate once; exit 1 where an alert fires")] = False,
    silence: Annotated[str | None, typer.Option(metavar="ALERT", help="tell nobody of this one for a while")] = None,
    lasting: Annotated[str, typer.Option("--for", metavar="DURATION", help="how long to be silent")] = "1h",
    reason: Annotated[str, typer.Option(help="why, for those who read the journal")] = "",
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Evaluate the alerts of the pipeline's file until Ctrl-C, remember them in `_ops` and tell of them; no JVM."""
    from datetime import timedelta

    from lakehouse.alerts import evaluator, history
    from lakehouse.logs import configure
    from lakehouse.maintenance.background import attach

    if attached:
        attach(sys.stdin.buffer)

    def tell_of(findings: Iterable[Finding]) -> None:
        for found in findings:
            typer.echo(json.dumps(found.to_dict()) if as_json else str(found))

    with stopping() as stop:
        loaded = load(pipeline)
        configure(loaded, as_json=as_json and not attached)  # a parent logs these lines, in a form of its own
        if silence is not None:
            until = history.silence(loaded, silence, timedelta(seconds=duration(lasting)), reason)
            typer.echo(
                json.dumps({"alert": silence, "silenced_until": until.isoformat()}) if as_json else f"until {until}"
            )
        elif once:
            findings = evaluator.once(loaded)
            tell_of(findings)
            if any(found.standing.state == "firing" for found in findings):
                raise typer.Exit(1)
        else:
            standby = "another process evaluates these alerts; this one takes over when that ends"
            evaluator.follow(loaded, stop, tell_of, on_standby=lambda: typer.echo(standby, err=True))


@app.command()
def recover(
    pipeline: PipelineFile,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do it without asking")] = False,
    as_json: Json = False,
) -> None:
    """Find out what keeps a pipeline from starting, show the plan, and carry it out. Exit 1 where it is not done."""
    from lakehouse import embedded
    from lakehouse.config.loader import load_pipeline
    from lakehouse.lock import driver_lock
    from lakehouse.recover import carry_out, make_plan

    with embedded.borrowed() as environ:
        model = load_pipeline(pipeline, environ)
        with driver_lock(storage.checkpoint_url(model.root, model.name)):
            plan = make_plan(model)
            if not as_json:
                typer.echo(str(plan))
            # A script that wants JSON is not asked: without --yes it gets the plan only.
            agreed = not plan.healthy and (yes or (not as_json and typer.confirm("do this?", default=False)))
            if agreed:
                carry_out(model, plan)
    if as_json:
        typer.echo(json.dumps(asdict(plan) | {"healthy": plan.healthy, "done": agreed}, indent=2))
    elif agreed:
        typer.echo("done")
    if not plan.healthy and not agreed:
        raise typer.Exit(1)


@app.command()
def doctor(pipeline: PipelineFile, *, as_json: Json = False) -> None:
    """Look for damage in tables, checkpoint and topic of a pipeline at rest; writes nothing. Exit 1 if it finds any."""
    from lakehouse.doctor import examine

    found = examine(load(pipeline))
    typer.echo(json.dumps(asdict(found) | {"healthy": found.healthy}, indent=2) if as_json else str(found))
    if not found.healthy:
        raise typer.Exit(1)


@app.command()
def cost(
    pipeline: PipelineFile,
    rate: Annotated[float, typer.Option(min=0.001, help="events per second, on average")],
    prices: Annotated[Path | None, typer.Option(help="your prices and assumptions (YAML), over the shipped")] = None,
    *,
    measure: Annotated[bool, typer.Option("--measure", help="sizes and requests from the pipeline's tables")] = False,
    as_json: Json = False,
) -> None:
    """What the pipeline costs a month on an object store, line by line, and what would save most; no JVM."""
    from lakehouse.cost.inputs import load_inputs
    from lakehouse.cost.run import estimate

    found = estimate(load(pipeline), rate, load_inputs(prices), from_tables=measure)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


@app.command()
def torture(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    kills: Annotated[int, typer.Option(min=1, help="steps; each ends with a SIGKILL of the pipeline")] = 20,
    events: Annotated[int, typer.Option(min=1, help="at least so many are sent")] = 100_000,
    seed: Annotated[int | None, typer.Option(min=0, help="the same seed, the same schedule; drawn by default")] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="events per second; spread over the steps")] = None,
    faults: Annotated[str | None, typer.Option(help="names separated by commas; all by default")] = None,
    mutant: Annotated[list[str] | None, typer.Option(help="an error to put into the pipeline; must turn red")] = None,
    folder: Annotated[Path | None, typer.Option(help="where everything lies, and stays; else a temporary one")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="keep the report as JSON here")] = None,
    markdown: Annotated[Path | None, typer.Option(help="keep the report as Markdown here")] = None,
) -> None:
    """Kill the pipeline again and again under load, then check every record. Exit 1 where a check turns red."""
    import random

    from lakehouse.torture.harness import Plan
    from lakehouse.torture.harness import torture as run_torture
    from lakehouse.torture.schedule import FAULTS

    plan = Plan(
        pipeline_file=pipeline.resolve(),
        kills=kills,
        events=events,
        seed=random.SystemRandom().randrange(2**31) if seed is None else seed,
        rate=rate,
        faults=faults.split(",") if faults else FAULTS,
        mutants=mutant or (),
    )
    with stopping() as stop:
        report = run_torture(plan, folder=folder, say=typer.echo, stop=stop)
    if json_file:
        json_file.write_text(json.dumps(asdict(report) | {"ok": report.ok}, indent=2) + "\n")
    if markdown:
        markdown.write_text(report.to_markdown())
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def drill(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    faults: Annotated[str | None, typer.Option(help="names separated by commas; all by default")] = None,
    rate: Annotated[float, typer.Option(min=1, help="events per second")] = 300,
    folder: Annotated[Path | None, typer.Option(help="where everything lies, and stays; else a temporary one")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="keep the report as JSON here")] = None,
    markdown: Annotated[Path | None, typer.Option(help="keep the report as Markdown here")] = None,
) -> None:
    """Disturb a pipeline in ten ways; each must be told by its alert within 15 s. Exit 1 where one is not."""
    from lakehouse.drill.run import drill as run_drill

    names = faults.split(",") if faults else ()
    with stopping() as stop:
        report = run_drill(pipeline.resolve(), faults=names, rate=rate, folder=folder, say=typer.echo, stop=stop)
    if json_file:
        json_file.write_text(json.dumps(asdict(report) | {"ok": report.ok}, indent=2) + "\n")
    if markdown:
        markdown.write_text(report.to_markdown())
    if not report.ok:
        raise typer.Exit(1)


@quarantine_app.command("list")
def quarantine_list(
    pipeline: PipelineFile,
    rule: Rules = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, help="rows shown at most, with --rows")] = 20,
    *,
    rows: Annotated[bool, typer.Option("--rows", help="the rows, instead of a count by rule")] = False,
    as_json: Json = False,
) -> None:
    """Count the refused rows by rule, or list them."""
    from lakehouse import quarantine

    choice = _choice(rule, since, until, where, limit if rows else None)
    found = quarantine.entries(load(pipeline), choice) if rows else quarantine.overview(load(pipeline), choice)
    if isinstance(found, list):
        listed = [entry.to_dict() for entry in found]
        typer.echo(json.dumps(listed, default=str) if as_json else quarantine.render_entries(found))
    else:
        typer.echo(json.dumps(asdict(found), default=str, indent=2) if as_json else str(found))


@quarantine_app.command("show")
def quarantine_show(
    pipeline: PipelineFile,
    row: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="as `quarantine list --rows` names it")],
    *,
    as_json: Json = False,
) -> None:
    """Show one refused record: its bytes, every reason, and every replay of it, also once it is in silver."""
    from lakehouse import quarantine

    partition, separator, offset = row.partition(":")
    if not (separator and partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"{row!r} is not PARTITION:OFFSET", remedy="write two numbers, such as 0:1234")
    entry = quarantine.find(load(pipeline), int(partition), int(offset))
    typer.echo(json.dumps(entry.to_dict(), default=str, indent=2) if as_json else str(entry))


@quarantine_app.command("replay")
def quarantine_replay(
    pipeline: PipelineFile,
    rule: Rules = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first so many rows; all by default")] = None,
    repair: Annotated[
        str | None, typer.Option(help="MODULE:FUNCTION or file.py:FUNCTION, bytes -> bytes or None")
    ] = None,
    replay_id: Annotated[str | None, typer.Option("--id", help="a replay of this name is done at most once")] = None,
    cores: Annotated[int | None, typer.Option(help="cores for Spark; all by default")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do it; without, only what would happen is shown")] = False,
    as_json: Json = False,
) -> None:
    """Judge refused rows anew and move the accepted ones to silver and the rollups, exactly once."""
    from lakehouse.lock import replay_lock
    from lakehouse.repair import load_repair
    from lakehouse.replay import SparkJudge
    from lakehouse.replay import replay as move
    from lakehouse.session import local_session

    described = load(pipeline)
    judge, suite = SparkJudge.of(lambda: local_session(described.name, cores=cores), described)
    choice, repairing = _choice(rule, since, until, where, limit), load_repair(repair) if repair else None
    with replay_lock(storage.machine_root(described.root), described.name):
        found = move(
            described,
            choice,
            judge,
            suite_sha256=suite.sha256,
            suite=suite,
            repair=repairing,
            replay_id=replay_id,
            commit=yes,
        )
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))


@broker_app.command("start")
def broker_start(
    port: Annotated[int | None, typer.Option(help="9092 or, where that is taken, a free one")] = None,
    *,
    secure: Annotated[bool, typer.Option("--secure", help="TLS, accounts and access rules; from then on")] = False,
    as_json: Json = False,
) -> None:
    """Start the broker and return when it serves; its data stays for the next start."""
    from lakehouse import broker, embedded

    show(broker.start(embedded.broker_folder(), port=port, secure=secure), as_json=as_json)


@broker_app.command("account")
def broker_account(
    name: Annotated[str, typer.Argument(help="of the account, such as pipeline")],
    read: Annotated[list[str] | None, typer.Option(help="a topic that it may read; again for more")] = None,
    write: Annotated[
        list[str] | None, typer.Option(help="a topic that it may make and write to; again for more")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Make an account of a secured broker, or give one a new password and certificate; print its source.options."""
    import yaml

    from lakehouse import broker, embedded

    running = broker.status(embedded.broker_folder())
    if running is None:
        raise ConfigError("no broker is running", remedy="lakehouse broker start --secure")
    security = broker.put_account(running, name, reads=read or (), writes=write or ())
    ways = {
        "by password": {"servers": running.bootstrap, "options": security.option_lines(name, "scram")},
        "by certificate": {"servers": running.tls_bootstrap, "options": security.option_lines(name, "certificate")},
    }
    if as_json:
        typer.echo(json.dumps(ways, indent=2))
        return
    for way, source in ways.items():
        typer.echo(f"# {way}\n{yaml.safe_dump({'source': source}, sort_keys=False, width=1000)}", nl=False)


@broker_app.command("stop")
def broker_stop() -> None:
    """Stop the broker cleanly; its data stays."""
    from lakehouse import broker, embedded

    typer.echo("stopped" if broker.stop(embedded.broker_folder()) else "no broker was running")


@broker_app.command("status")
def broker_status(*, as_json: Json = False) -> None:
    """Tell where the broker serves; exit 1 where none runs."""
    from lakehouse import broker, embedded

    running = broker.status(embedded.broker_folder())
    if running is None:
        typer.echo("null" if as_json else "no broker is running")
        raise typer.Exit(1)
    show(running, as_json=as_json)


@bench_app.command("latency")
def bench_latency(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    rate: Annotated[float, typer.Option(help="events per second, constant")] = 2_000,
    seconds: Annotated[float, typer.Option(help="measured time, without the warm-up")] = 60,
    warm_up: Annotated[float, typer.Option(help="seconds cut from the beginning")] = 20,
    partitions: Annotated[int, typer.Option(help="partitions of the topic")] = 2,
    bad_share: Annotated[float, typer.Option(min=0, max=1, help="share of events with a fault")] = 0.02,
    output: Annotated[Path | None, typer.Option(help="keep the report as JSON here")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Freshness: an event's send time → an outside reader can read the version that holds it."""
    from lakehouse.bench.latency import measure

    with stopping() as stop:
        report = measure(
            pipeline,
            rate=rate,
            seconds=seconds,
            warm_up=warm_up,
            partitions=partitions,
            bad_share=bad_share,
            stop=stop,
        )
    _show_bench(report, output, as_json=as_json)


@bench_app.command("saturation")
def bench_saturation(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    first: Annotated[float, typer.Option("--from", help="events per second to begin with")] = 20_000,
    most: Annotated[float, typer.Option("--to", help="events per second to end with")] = 400_000,
    factor: Annotated[float, typer.Option(min=1.01, help="of each rate to the one before")] = 1.25,
    seconds: Annotated[float, typer.Option(min=10, help="that each rate lasts")] = 30,
    warm_up: Annotated[float, typer.Option(help="seconds at the first rate before anything counts")] = 60,
    bound: Annotated[float, typer.Option(help="that the p99 has to stay below, ms")] = 1_000,
    partitions: Annotated[int, typer.Option(help="partitions of the topic")] = 2,
    output: Annotated[Path | None, typer.Option(help="keep the report as JSON here")] = None,
    *,
    as_json: Json = False,
) -> None:
    """The highest rate at which events stay fresh and nothing piles up."""
    from lakehouse.bench.saturation import saturate

    with stopping() as stop:
        report = saturate(
            pipeline,
            first=first,
            most=most,
            factor=factor,
            seconds=seconds,
            warm_up=warm_up,
            bound_ms=bound,
            partitions=partitions,
            stop=stop,
            say=lambda line: typer.echo(line, err=True),
        )
    _show_bench(report, output, as_json=as_json)


@bench_app.command("baseline")
def bench_baseline(
    pipeline: DefaultPipelineFile = _DEFAULT_PIPELINE,
    rate: Annotated[float, typer.Option(help="events per second, constant")] = 30_000,
    seconds: Annotated[float, typer.Option(help="measured time, without the warm-up")] = 60,
    warm_up: Annotated[float, typer.Option(help="seconds cut from the beginning")] = 60,
    partitions: Annotated[int, typer.Option(help="partitions of the topic")] = 2,
    output: Annotated[Path | None, typer.Option(help="keep the report as JSON here")] = None,
    *,
    as_json: Json = False,
) -> None:
    """The pipeline beside Spark's own Delta sink, as it comes and tuned, with the same load in the same run."""
    from lakehouse.bench.baseline import compare

    with stopping() as stop:
        report = compare(
            pipeline,
            rate=rate,
            seconds=seconds,
            warm_up=warm_up,
            partitions=partitions,
            stop=stop,
            say=lambda line: typer.echo(line, err=True),
        )
    _show_bench(report, output, as_json=as_json)


def _show_bench(report: Any, output: Path | None, *, as_json: bool) -> None:  # noqa: ANN401 - any bench's report
    rendered = json.dumps(asdict(report), indent=2, default=str)
    if output:
        output.write_text(rendered + "\n")
    typer.echo(rendered if as_json else str(report))


@quality_app.command("explain")
def quality_explain(
    path: Annotated[Path, typer.Argument(metavar="SUITE|PIPELINE", help="a suite (.json) or a pipeline's file")],
    *,
    as_json: Json = False,
) -> None:
    """Say for each expectation what it means in the stream, in the report, and why; no JVM."""
    from lakehouse.quality.explain import explain
    from lakehouse.quality.suite import check_columns, load_suite

    if path.suffix == ".json":
        suite = load_suite(path)
    else:
        pipeline = load(path)
        suite = load_suite(pipeline.quality.suite)
        check_columns(suite, {name: field.type for name, field in pipeline.source.fields.items()})
    explained = explain(suite)
    typer.echo(json.dumps(explained.to_dict(), indent=2) if as_json else str(explained))


@quality_app.command("lint")
def quality_lint(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="a suite (.json)")],
    pipeline: Annotated[Path | None, typer.Option(help="also hold it against this pipeline's fields")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Find rules that repeat, exclude or hide each other, or do not fit the pipeline. Exit 1 if there are any."""
    from lakehouse.quality.lint import lint
    from lakehouse.quality.schema_rules import column_types
    from lakehouse.quality.suite import load_suite
    from lakehouse.schemas import silver_schema

    fields = load(pipeline).source.fields if pipeline else None
    types = {name: field.type for name, field in fields.items()} if fields else None
    found = lint(load_suite(suite), types, column_types(silver_schema(fields)) if fields else None)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    if not found.ok:
        raise typer.Exit(1)


@quality_app.command("suggest")
def quality_suggest(
    pipeline: PipelineFile,
    output: Annotated[Path | None, typer.Option(help="write the suite into this new file")] = None,
    rows: Annotated[int, typer.Option(min=1, help="look at about so many rows, at most")] = 200_000,
    version: Annotated[int | None, typer.Option(min=0, help="of silver; the newest by default")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Profile silver and propose a suite that all rows looked at pass, with the evidence for each rule; no JVM."""
    from lakehouse.suggest.run import suggest

    found = suggest(load(pipeline), rows=rows, version=version)
    if output is not None:
        found.write(output)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


@quality_app.command("run")
def quality_run(
    pipeline: PipelineFile,
    start: Annotated[str | None, typer.Option("--from", help=_FROM)] = None,
    end: Annotated[str | None, typer.Option("--to", help=_TO)] = None,
    last: Annotated[str | None, typer.Option(help=_LAST)] = None,
    run_id: Annotated[str | None, typer.Option(help="name of the run; a repetition writes nothing again")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Great Expectations over silver and quarantine at one version. Exit 1 if a critical expectation failed."""
    from datetime import UTC, datetime

    from lakehouse.reports.population import parse_span
    from lakehouse.reports.run import run_report
    from lakehouse.session import local_session

    span = parse_span(start, end, last, now=datetime.now(UTC))
    found = load(pipeline)
    storage.require_folder(found.root, "this command reads the tables by Spark", _ON_A_CLUSTER)
    spark = local_session(f"quality-{found.name}", reads_delta=True)
    try:
        report = run_report(spark, found, span, run_id=run_id)
    finally:
        spark.stop()
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else str(report))
    if not report.ok:
        raise typer.Exit(1)


@quality_app.command("drift")
def quality_drift(
    pipeline: PipelineFile,
    last: Annotated[str, typer.Option(help="the time that is looked at, up to now")] = "15m",
    against: Annotated[str, typer.Option(help="the time before it that it is held against")] = "1d",
    share: Annotated[float, typer.Option(min=0, max=1, help="by how much a share may differ, for certain")] = 0.01,
    distance: Annotated[float, typer.Option(min=0, max=1, help="which share of values may have moved")] = 0.1,
    *,
    write: Annotated[bool, typer.Option(help="append the result to _quality/NAME_drift")] = True,
    as_json: Json = False,
) -> None:
    """Failures and metrics of the last minutes against the trailing day; no JVM. Exit 1 if anything drifted."""
    from datetime import UTC, datetime, timedelta

    from lakehouse.drift import Stretch, append, find_drift

    spans = {"last": timedelta(seconds=duration(last)), "against": timedelta(seconds=duration(against))}
    found = load(pipeline)
    stretch = Stretch.until(datetime.now(UTC), **spans)
    report = find_drift(found, stretch, share_tolerance=share, distance_tolerance=distance)
    if write and report.comparisons:
        append(report, found.root)
    typer.echo(json.dumps(report.to_dict(), indent=2, default=str) if as_json else str(report))
    if not report.ok:
        raise typer.Exit(1)


@quality_app.command("suites")
def quality_suites(pipeline: PipelineFile, *, as_json: Json = False) -> None:
    """List the suites that judged a pipeline's rows, each with its first batch; no JVM."""
    from lakehouse.quality.archive import history, render_history

    found = history(load(pipeline))
    typer.echo(json.dumps([asdict(use) for use in found], default=str, indent=2) if as_json else render_history(found))


@quality_app.command("recheck")
def quality_recheck(
    pipeline: PipelineFile,
    start: Annotated[str | None, typer.Option("--from", help=_FROM)] = None,
    end: Annotated[str | None, typer.Option("--to", help=_TO)] = None,
    last: Annotated[str | None, typer.Option(help=_LAST)] = None,
    *,
    as_json: Json = False,
) -> None:
    """Judge every row again by the suite that judged it. Exit 1 if a verdict comes out otherwise."""
    from datetime import UTC, datetime

    from lakehouse.reports.population import parse_span
    from lakehouse.reports.recheck import recheck
    from lakehouse.session import local_session

    span = parse_span(start, end, last, now=datetime.now(UTC))
    found = load(pipeline)
    storage.require_folder(found.root, "this command reads the tables by Spark", _ON_A_CLUSTER)
    spark = local_session(f"quality-{found.name}", reads_delta=True)
    try:
        checked = recheck(spark, found, span)
    finally:
        spark.stop()
    typer.echo(json.dumps(asdict(checked) | {"ok": checked.ok}, indent=2) if as_json else str(checked))
    if not checked.ok:
        raise typer.Exit(1)


SavepointName = Annotated[str, typer.Argument(metavar="NAME", help="such as before-upgrade")]
Agreed = Annotated[bool, typer.Option("--yes", help="do it without asking")]


@savepoint_app.command("create")
def savepoint_create(
    pipeline: PipelineFile,
    name: SavepointName,
    note: Annotated[str, typer.Option(help="why, for those who read the list")] = "",
    *,
    as_json: Json = False,
) -> None:
    """Keep the last batch that every table has, beside whatever runs; no JVM."""
    from lakehouse import savepoints

    made = savepoints.create(load(pipeline), name, note=note)
    typer.echo(json.dumps(savepoints.to_dict(made), indent=2) if as_json else savepoints.said(made))


@savepoint_app.command("list")
def savepoint_list(
    pipeline: PipelineFile,
    gb_month: Annotated[float, typer.Option(min=0, help="price of a GB for a month, dollars")] = 0.023,
    *,
    as_json: Json = False,
) -> None:
    """List the savepoints, with what is kept on the disk for each alone."""
    from lakehouse import savepoints

    found = savepoints.listed(load(pipeline), gb_month=gb_month)
    typer.echo(json.dumps([asdict(one) for one in found], indent=2) if as_json else savepoints.render(found))


@savepoint_app.command("restore")
def savepoint_restore(
    pipeline: PipelineFile, name: SavepointName, *, yes: Agreed = False, as_json: Json = False
) -> None:
    """Bring every table back to a savepoint; the stream goes on from there. Exit 1 where it is not done."""
    from lakehouse import embedded, savepoints, storage
    from lakehouse.config.loader import load_pipeline
    from lakehouse.lock import driver_lock, replay_lock

    with embedded.borrowed() as environ:
        model = load_pipeline(pipeline, environ)
        place = storage.machine_root(model.root)
        with driver_lock(storage.checkpoint_url(model.root, model.name)), replay_lock(place, model.name):
            plan = savepoints.plan_restore(model, name)
            if _agreed(plan, nothing_to_do=plan.nothing_to_do, yes=yes, as_json=as_json):
                savepoints.restore(model, name)


@savepoint_app.command("fork")
def savepoint_fork(
    pipeline: PipelineFile,
    name: SavepointName,
    into: Annotated[
        Path, typer.Option("--into", metavar="PIPELINE", help="file of the new pipeline, with another root")
    ],
    *,
    yes: Agreed = False,
    as_json: Json = False,
) -> None:
    """Make an independent pipeline that begins at a savepoint. Exit 1 where it is not done."""
    from lakehouse import embedded, savepoints, storage
    from lakehouse.config.loader import load_pipeline
    from lakehouse.lock import driver_lock

    with embedded.borrowed() as environ:
        model, new = load_pipeline(pipeline, environ), load_pipeline(into, environ)
        plan = savepoints.plan_fork(model, name, new)
        with driver_lock(storage.checkpoint_url(new.root, new.name)):
            if _agreed(plan, yes=yes, as_json=as_json):
                savepoints.fork(model, name, new)


@savepoint_app.command("drop")
def savepoint_drop(pipeline: PipelineFile, name: SavepointName, *, yes: Agreed = False) -> None:
    """Forget a savepoint; maintenance deletes what nothing else needs. Exit 1 where it is not done."""
    from lakehouse import savepoints

    model = load(pipeline)
    if not (yes or typer.confirm(f"forget savepoint {name}?", default=False)):
        raise typer.Exit(1)
    savepoints.drop(model, name)


def _agreed(plan: Any, *, nothing_to_do: bool = False, yes: bool, as_json: bool) -> bool:  # noqa: ANN401 - any dataclass
    """Show a plan; whether it is to be done. A script that wants JSON is not asked. Exit 1 where nobody agrees."""
    typer.echo(json.dumps(asdict(plan) | {"done": yes and not nothing_to_do}, indent=2) if as_json else str(plan))
    if nothing_to_do:
        return False
    if not (yes or (not as_json and typer.confirm("do this?", default=False))):
        raise typer.Exit(1)
    return True


def _choice(
    rules: list[str] | None, since: str | None, until: str | None, where: list[str] | None, limit: int | None
) -> Choice:
    from lakehouse.quarantine import Choice, parse_moment, parse_where

    return Choice(
        rules=frozenset(rules or ()),
        since=parse_moment(since) if since else None,
        until=parse_moment(until) if until else None,
        where=parse_where(where or ()),
        limit=limit,
    )


def load(path: Path) -> Pipeline:
    """The pipeline's file, with the embedded broker as Kafka where one runs and no other is named."""
    from lakehouse import embedded
    from lakehouse.config.loader import load_pipeline

    return load_pipeline(path, embedded.environment())


def duration(text: str) -> float:
    """Seconds of a duration as pipeline files spell it."""
    from lakehouse.config.models import parse_duration
    from lakehouse.errors import ConfigError

    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ConfigError(f"{text!r} is not a time to wait", remedy="write a whole number and ms, s, m, h or d: 10s")
    return seconds


def tell(reports: Iterable[TableReport], *, as_json: bool, idle: bool = False) -> None:
    """Print what became of each table: on standard output, errors on the other; the idle ones only where asked."""
    for report in reports:
        if as_json:
            typer.echo(json.dumps(asdict(report)))
        elif report.error:
            typer.echo(f"error: {report}", err=True)
        elif idle or not report.idle:
            typer.echo(str(report))


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that work in progress can end in order."""
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def show(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 - any dataclass
    """Print a flat dataclass as lines or as JSON."""
    values = asdict(answer)
    if as_json:
        typer.echo(json.dumps(values, default=str))
    else:
        width = max(map(len, values))
        for name, value in values.items():
            typer.echo(f"{name:<{width}}  {value}")
