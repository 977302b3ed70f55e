"""How long viewers see old data after a crash: SIGKILL of the whole pipeline → the hot table is fresh again.

    python -m benchmarks.recovery [--kills 20] [--rate 1000] [--standby] [--json FILE]

A broker, an open-loop load and the pipeline run in a temporary folder. Each time the hot table is fresh, the pipeline
and every process that it started are killed at once and the pipeline is started again, as a supervisor would. What is
timed ends when the dashboard's own follower of the hot table holds an event that happened after the kill. With
--standby a second driver stands by and takes over; the next one is started once the table is fresh.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from lakehouse.bench.stack import machine, prepared
from lakehouse.processes import Child
from lakehouse.serving.follower import Follower
from lakehouse.serving.snapshot import Shape
from lakehouse.storage import layer_url

CONF = Path("conf/feature_events.yaml")
LIMIT_S = 180.0
STEADY_S = 3.0
"""Between fresh and the next kill: the pipeline has caught up and commits its usual batches."""


def main() -> None:
    """Kill and wait, again and again; print each time, the median and the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1_000)
    parser.add_argument("--standby", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as ending:
        ground = ending.enter_context(prepared(CONF, 2))
        folder, pipeline = ground.folder, ground.pipeline

        def start(name: str, *command: str) -> Child:
            child = Child.start(
                name, ["-m", "lakehouse", *command], environment=ground.environment, log=folder / f"{name}.log"
            )
            ending.callback(child.stop)
            return child

        # The first start writes the archive of the JVM's classes when it ends in order; later ones map it.
        first = start("first", "run", str(CONF), "--json")
        start("load", "produce", "--pipeline", str(CONF), "--rate", str(arguments.rate), "--shape", "flat")
        table, _, rollup = next(iter(pipeline.rollup_tables()))
        follower = Follower(layer_url(pipeline.root, "gold", table), Shape.of(rollup, pipeline.source.fields)).start()
        ending.callback(follower.stop)
        await_fresh(follower, first, time.time())
        first.stop(LIMIT_S)
        command = ("run", str(CONF), "--json", *(["--standby"] if arguments.standby else []))
        running = start("pipeline-0", *command)
        await_fresh(follower, running, time.time())
        times: list[float] = []
        for number in range(1, arguments.kills + 1):
            if arguments.standby:
                following = start(f"pipeline-{number}", *command)
                await_line(following, "standing by")
            time.sleep(STEADY_S)
            killed = time.time()
            kill(running)
            running = following if arguments.standby else start(f"pipeline-{number}", *command)
            times.append(round(await_fresh(follower, running, killed) - killed, 2))
            print(f"{number:>3}/{arguments.kills}  fresh after {times[-1]:.2f} s{phases(running, killed)}", flush=True)
    found = {"kills": len(times), "median_s": round(statistics.median(times), 2), "worst_s": max(times)}
    print(f"SIGKILL to fresh: median {found['median_s']} s, worst {found['worst_s']} s of {found['kills']}")
    if arguments.json:
        report = {**found, "standby": arguments.standby, "times_s": times, "rate": arguments.rate, "machine": machine()}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def kill(running: Child) -> None:
    """SIGKILL of the process and all that it started."""
    processes = running.tree()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=5)


def phases(running: Child, killed_s: float) -> str:
    """When after the kill the query began and its first micro-batches were committed, from the driver's own lines."""
    found = []
    for line in running.log.read_text().splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        after = said.get("time_ms", 0) / 1_000 - killed_s
        if said.get("event") == "started":
            found.append(f"reads after {after:.2f} s")
        elif said.get("event") == "batch":
            found.append(
                f"{sum(said['rows'].values())} rows in {said['job_ms'] + said['commit_ms']:.0f} ms by {after:.2f}"
            )
    return ": " + ", ".join(found[:4])


def await_line(running: Child, text: str) -> None:
    """Return once the process has written a line with this text."""
    deadline = time.monotonic() + LIMIT_S
    while not running.log.exists() or text not in running.log.read_text():
        running.require_running()
        if time.monotonic() > deadline:
            raise SystemExit(f"no line with {text!r} within {LIMIT_S:.0f} s in {running.log}")
        time.sleep(0.1)


def await_fresh(follower: Follower, running: Child, since_s: float) -> float:
    """When the follower first held an event of after `since_s`, seconds since 1970 UTC."""
    deadline = time.monotonic() + LIMIT_S
    while (newest := follower.snapshot.max_event_ms) is None or newest < 1_000 * since_s:
        running.require_running()
        if time.monotonic() > deadline:
            raise SystemExit(f"the hot table was not fresh within {LIMIT_S:.0f} s; see {running.log}")
        time.sleep(0.01)
    return time.time()


if __name__ == "__main__":
    main()
