"""Measures, for compare.sh: the service, its peers and pgbench, on one PostgreSQL."""

import argparse
import collections
import contextlib
import glob
import json
import math
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

import chart

HERE = os.path.dirname(os.path.abspath(__file__))
PARTS = ["create", "read", "list", "hot", "overload", "memory", "start", "distance", "growth"]
IN_FLIGHT = [1, 16, 64, 256, 1024]
PGBENCH_CLIENTS_MAX = 256
# Distance: statements that do nothing, for the median of a round trip.
ROUND_TRIPS = 50
# Overload: more calls under way than these connections have streams, so that some wait with their client.
OVERLOAD_CONNECTIONS = 32
OVERLOAD_IN_FLIGHT = 8192


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("pg-bin", "socket", "scratch", "release"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--out", default=os.path.join(HERE, "results"))
    return parser.parse_args()


class Bench:
    def __init__(self, options):
        self.options = options
        self.results = {}
        self.psql("postgres", "CREATE DATABASE usual; CREATE DATABASE booking")
        with open(os.path.join(HERE, "usual.sql"), encoding="utf-8") as schema:
            self.psql("usual", schema.read())
        self.run_program("booking-service", "migrate", "--database-url", self.url("booking"))

    # --- What is run ---

    def program(self, name):
        folder = "" if name == "booking-service" else "examples"
        return os.path.join(self.options.release, folder, name)

    def run_program(self, name, *args):
        ran = subprocess.run([self.program(name), *args], capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(f"{name} {' '.join(args)}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def url(self, database, folder=None):
        return f"host={folder or self.options.socket} user=postgres dbname={database}"

    def psql(self, database, sql, folder=None):
        command = [os.path.join(self.options.pg_bin, "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", folder or self.options.socket, "-U", "postgres", "-d", database]
        ran = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(ran.stderr)
        return ran.stdout.strip()

    @contextlib.contextmanager
    def server(self, command):
        """A running server; yields its address and process."""
        port = free_port()
        address = f"127.0.0.1:{port}"
        process = subprocess.Popen([*command, "--listen", address], stderr=subprocess.DEVNULL)
        try:
            wait_for_port(port, process)
            yield address, process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def service(self, folder=None, *args):
        return self.serve(self.url("booking", folder), *args)

    def serve(self, url, *args):
        return self.server([self.program("booking-service"), "serve", "--database-url", url, *args])

    def baseline(self):
        return self.server([self.program("peers"), "baseline", "--database", self.url("usual")])

    def empty(self):
        return self.server([self.program("peers"), "empty"])

    def load(self, address, scenario, in_flight, *args, warm_up="1s", check=False, quiet=False):
        checks = [] if check else ["--no-check"]
        duration = f"{self.options.seconds}s"
        out = self.run_program(
            "load", scenario, "--address", f"http://{address}", "--in-flight", str(in_flight),
            "--duration", duration, "--warm-up", warm_up, "--keep", "--json", *checks, *args)
        result = json.loads(out)
        if result["errors"] and not quiet:
            print(f"  errors: {result['errors']}", file=sys.stderr)
        return result

    def pgbench(self, clients):
        """Answers as load does, as far as they are used."""
        prefix = os.path.join(self.options.scratch, "pgbench_log")
        command = [os.path.join(self.options.pg_bin, "pgbench"), "-n", "-M", "prepared", "-c", str(clients),
                   "-j", str(min(clients, os.cpu_count())), "-T", str(self.options.seconds + 1),
                   "-f", os.path.join(HERE, "usual.pgbench"), "-l", "--log-prefix", prefix,
                   "--max-tries", "24", "-h", self.options.socket, "-U", "postgres", "usual"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(ran.stderr)
        rate = float(re.search(r"tps = ([\d.]+) \(without", ran.stdout).group(1))
        latencies = []
        for path in glob.glob(prefix + ".*"):
            with open(path, encoding="utf-8") as log:
                latencies += [int(line.split()[2]) for line in log]
            os.remove(path)
        latencies.sort()
        at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))] / 1000
        return {"answers_per_second": rate, "latency_ms": {"CreateBooking": {"p50": at(0.5), "p99": at(0.99)}}}

    def clean(self):
        self.psql("usual", "TRUNCATE usual_bookings")
        self.psql("booking", "TRUNCATE bookings, booking_guards")
        self.psql("booking", "CHECKPOINT")

    # --- What is measured ---

    def create(self):
        """Free slots over many resources, by all four."""
        seen = {}
        with self.service() as (ours, _), self.baseline() as (usual, _), self.empty() as (empty, _):
            for run in range(self.options.runs):
                for in_flight in IN_FLIGHT:
                    measured = {
                        "usual transaction behind gRPC": lambda n: self.load(usual, "spread", n),
                        "this service": lambda n: self.load(ours, "spread", n, check=True),
                        "empty rpc": lambda n: self.load(empty, "spread", n),
                    }
                    if in_flight <= PGBENCH_CLIENTS_MAX:
                        measured["pgbench"] = self.pgbench
                    for who, measure in measured.items():
                        self.clean()
                        result = measure(in_flight)
                        seen.setdefault((who, in_flight), []).append(brief(result, "CreateBooking"))
                        say(f"create, run {run + 1}, {in_flight} in flight, {who}", seen[who, in_flight][-1])
        self.results["create"] = [
            {"who": who, "in_flight": in_flight, **medians(runs)} for (who, in_flight), runs in seen.items()]

    def interleaved(self, part, kind, *measures):
        seen = {}
        for run in range(self.options.runs):
            for who, measure in measures:
                seen.setdefault(who, []).append(brief(measure(), kind))
                say(f"{part}, run {run + 1}, {who}", seen[who][-1])
        self.results[part] = {who: medians(runs) for who, runs in seen.items()}

    def read(self):
        self.clean()
        with self.service() as (ours, _), self.baseline() as (usual, _), self.empty() as (empty, _):
            self.interleaved(
                "read", "GetBooking",
                ("usual statement behind gRPC", lambda: self.load(usual, "read", 256)),
                ("this service", lambda: self.load(ours, "read", 256)),
                ("empty rpc", lambda: self.load(empty, "read", 256)))

    def list(self):
        """A thousand bookings: twenty resources of fifty."""
        with self.service() as (ours, _), self.baseline() as (usual, _):
            def measure(address):
                self.clean()
                return self.load(address, "list", 64, "--resources", "20")
            self.interleaved(
                "list", "ListBookings",
                ("everything up to 1,000", lambda: measure(usual)),
                ("this service, a page of 50", lambda: measure(ours)))

    def hot(self):
        with self.service() as (ours, _), self.empty() as (empty, _):
            def rivals():
                self.clean()
                return self.load(ours, "hot", 1024, "--rivals", "1000", check=True)
            self.interleaved(
                "hot", "CreateBooking",
                ("this service", rivals),
                ("empty rpc", lambda: self.load(empty, "hot", 1024)))
            noise = self.transactions_during(lambda: time.sleep(5))
            self.clean()
            counted = {}
            begin = time.time()
            transactions = self.transactions_during(
                lambda: counted.update(self.load(ours, "hot", 1024, warm_up="0s")), settle=True)
            # pg_stat_database counts its own reading, too: twice in both.
            own = noise / 5 * (time.time() - begin)
            self.results["hot"]["transactions per 1,000 rivals"] = round(
                max(transactions - own, 0) / counted["answers"] * 1000, 2)
            say("hot, transactions per 1,000 rivals", self.results["hot"]["transactions per 1,000 rivals"])

    def transactions_during(self, work, settle=False):
        count = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'booking'"
        # Backends report what they have done when they are idle for a second.
        time.sleep(1.5)
        before = int(self.psql("postgres", count))
        work()
        time.sleep(1.5 if settle else 0)
        return int(self.psql("postgres", count)) - before

    def memory(self):
        self.clean()
        with self.service() as (ours, process):
            idle = memory_of(process.pid, "VmRSS")
            for scenario in ("spread", "read"):
                self.load(ours, scenario, 1024)
            self.results["memory"] = {"idle MiB": idle, "peak MiB": memory_of(process.pid, "VmHWM")}
        say("memory", self.results["memory"])

    def start(self):
        taken = []
        for _ in range(7):
            port = free_port()
            address = f"127.0.0.1:{port}"
            out = self.run_program("peers", "start", "--address", address, "--", self.program("booking-service"),
                                   "serve", "--database-url", self.url("booking"), "--listen", address)
            taken.append(float(out))
        self.results["start"] = {"median ms": statistics.median(taken), "worst ms": max(taken)}
        say("start", self.results["start"])

    @contextlib.contextmanager
    def far(self):
        """A folder with the socket of the same database, 20 ms away."""
        folder = os.path.join(self.options.scratch, "far")
        os.makedirs(folder, exist_ok=True)
        near = os.path.join(folder, ".s.PGSQL.5432")
        with contextlib.suppress(FileNotFoundError):
            os.remove(near)
        far = os.path.join(self.options.socket, ".s.PGSQL.5432")
        delay = subprocess.Popen([self.program("peers"), "delay", "--listen", near, "--to", far, "--by", "10ms"])
        try:
            while not os.path.exists(near):
                time.sleep(0.01)
            yield folder
        finally:
            delay.kill()
            delay.wait()

    def distance(self):
        """The database 20 ms away."""
        with self.far() as folder:
            self.clean()
            with self.service() as (ours, _), self.service(folder) as (distant, _):
                self.interleaved(
                    "distance", "CreateBooking",
                    ("database here", lambda: self.load(ours, "spread", 1)),
                    ("database 20 ms away", lambda: self.load(distant, "spread", 1)))
            self.results["distance"]["round trip"] = self.round_trip(folder)
            say("distance, round trip", self.results["distance"]["round trip"])

    def round_trip(self, folder):
        """The median of a statement that does nothing, in milliseconds."""
        shown = self.psql("postgres", "\\timing on\n" + "SELECT;\n" * ROUND_TRIPS, folder)
        return statistics.median(float(time) for time in re.findall(r"Time: ([\d.]+) ms", shown))

    def overload(self):
        """Twice as many creates as can be carried, in an open loop."""
        seen = {}
        with self.far() as folder:
            # 4 transactions at a time of 16 bookings, 20 ms each: the database is what limits it.
            small = ["--lanes", "4", "--batch-size", "16", "--queue-length", "256"]
            for what, where, args in (("the database limits", folder, small), ("the processor limits", None, [])):
                metrics = f"127.0.0.1:{free_port()}"
                with self.service(where, "--metrics-listen", metrics, *args) as (ours, _):
                    for run in range(self.options.runs):
                        seen.setdefault(what, []).append(self.twice_the_peak(ours, metrics))
                        say(f"overload, run {run + 1}, {what}", seen[what][-1])
        self.results["overload"] = {what: medians(runs) for what, runs in seen.items()}

    def twice_the_peak(self, address, metrics):
        connections = ["--connections", str(OVERLOAD_CONNECTIONS)]
        self.clean()
        peak = self.load(address, "spread", 256, *connections)
        peak = peak["done"] / peak["seconds"]
        self.clean()
        before = buckets(metrics)
        seen = self.load(address, "spread", OVERLOAD_IN_FLIGHT, "--rate", str(round(2 * peak)), *connections, quiet=True)
        return {
            "peak": peak,
            "goodput": seen["done"] / seen["seconds"],
            "share": seen["done"] / seen["seconds"] / peak,
            "refused per second": sum(seen["errors"].values()) / seen["seconds"],
            "p99 ms": quantile(0.99, {bound: count - before[bound] for bound, count in buckets(metrics).items()}) * 1000,
            "p99 from due ms": seen["latency_ms"]["CreateBooking"]["p99"],
            "health p99 ms": seen["health_ms"]["p99"],
            "unhealthy": seen["unhealthy"],
        }

    def growth(self):
        """A database of each size, which take turns, as the speed of the machine changes."""
        sizes = [(f"{int(rows):,}", int(rows), False) for rows in self.options.rows.split(",")]
        largest = max(rows for _, rows, _ in sizes)
        sizes.append(("100,000 on the one resource", largest, True))
        kinds = {"spread": "CreateBooking", "read": "GetBooking", "list": "ListBookings"}
        seen = {}
        with contextlib.ExitStack() as stack:
            services = []
            for number, (name, rows, crowded) in enumerate(sizes):
                database = f"growth_{number}"
                self.psql("postgres", f"CREATE DATABASE {database}")
                self.run_program("booking-service", "migrate", "--database-url", self.url(database))
                self.psql(database, FILL.format(rows=rows) + (CROWD if crowded else ""))
                self.psql(database, "VACUUM ANALYZE; CHECKPOINT")
                address, _ = stack.enter_context(self.serve(self.url(database)))
                args = ["--resource", "crowd"] if crowded else []
                services.append((name, database, address, args))
                say("growth, filled", name)
            for run in range(self.options.runs):
                for name, database, address, args in services:
                    for scenario, kind in kinds.items():
                        if args:
                            # What a run before left on a resource that has a name would be in the way.
                            self.psql(database, "DELETE FROM bookings WHERE start_time >= '2030-01-01Z'"
                                                " AND resource = 'crowd'")
                        result = self.load(address, scenario, 1, "--resources", "20", *args)
                        seen.setdefault(name, {}).setdefault(kind, []).append(brief(result, kind)["p50 ms"])
                    say(f"growth, run {run + 1}, {name}", {kind: runs[-1] for kind, runs in seen[name].items()})
        self.results["growth"] = [
            {"bookings": name, **{kind: round(statistics.median(runs), 3) for kind, runs in kinds.items()}}
            for name, kinds in seen.items()]

    def machine(self):
        self.results["machine"] = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "PostgreSQL": self.psql("postgres", "SHOW server_version"),
            "settings": self.psql(
                "postgres", "SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) FROM pg_settings "
                "WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method')"),
            "fsyncs a second": self.fsyncs(),
            "runs": self.options.runs,
            "seconds": self.options.seconds,
        }

    def fsyncs(self):
        """How many times a second this disk writes 8 KiB for good."""
        path = os.path.join(self.options.scratch, "data", "fsync-probe")
        count, begin = 0, time.time()
        with open(path, "wb", buffering=0) as file:
            while time.time() - begin < 1:
                file.seek(0)
                file.write(b"x" * 8192)
                os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
                count += 1
        os.remove(path)
        return count


FILL = """
INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, create_time, update_time,
                      revision, fingerprint)
SELECT gen_random_uuid(), 'room-' || i % 1000, hour, hour + interval '1 hour', 'user-' || i % 997, '', 2,
       now(), now(), i, gen_random_uuid()
FROM (SELECT i, '2027-01-01Z'::timestamptz + i / 1000 * interval '1 hour' AS hour
      FROM generate_series(1, {rows}) i) AS hours;
INSERT INTO booking_guards (resource, day, touch_time)
SELECT DISTINCT resource, (start_time AT TIME ZONE 'UTC')::date, now() FROM bookings;
"""

CROWD = """
INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, create_time, update_time,
                      revision, fingerprint)
SELECT gen_random_uuid(), 'crowd', hour, hour + interval '1 hour', 'user-' || i % 997, '', 2,
       now(), now(), i, gen_random_uuid()
FROM (SELECT i, '2015-01-01Z'::timestamptz + i * interval '1 hour' AS hour
      FROM generate_series(1, 100000) i) AS hours
"""


def buckets(metrics):
    """Of the creates that were done, how many were under each bound, by the service's own clock."""
    with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
        lines = page.read().decode().splitlines()
    found = collections.Counter()
    for line in lines:
        bucket = re.match(r'rpc_server_call_duration_seconds_bucket\{(.*)\} (\d+)', line)
        if bucket and "/CreateBooking" in bucket[1] and '="OK"' in bucket[1]:
            found[float(re.search('le="([^"]+)"', bucket[1])[1])] = int(bucket[2])
    return found


def quantile(share, counts):
    """In seconds, from a histogram, as Prometheus estimates it: linear within a bucket."""
    bounds = sorted(counts)
    wanted = share * counts[bounds[-1]]
    low, below = 0, 0
    for bound in bounds:
        if counts[bound] >= wanted:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / (counts[bound] - below)
        low, below = bound, counts[bound]


def brief(result, kind):
    latency = result["latency_ms"][kind]
    return {"per second": result["answers_per_second"], "p50 ms": latency["p50"], "p99 ms": latency["p99"]}


def medians(runs):
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def say(what, seen):
    print(f"{what}: {seen}", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process):
    deadline = time.time() + 30
    while True:
        if process.poll() is not None or time.time() > deadline:
            sys.exit(f"does not serve: {process.args}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)


def memory_of(pid, key):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return round(int(re.search(rf"{key}:\s+(\d+)", status.read()).group(1)) / 1024, 1)


def processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        found = re.search(r"model name\s*:\s*(.+)", info.read())
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()


def main():
    options = arguments()
    bench = Bench(options)
    bench.machine()
    for part in options.only.split(","):
        getattr(bench, part)()
    os.makedirs(options.out, exist_ok=True)
    write = lambda name, text: chart.write(os.path.join(options.out, name), text)
    write("compare.json", json.dumps(bench.results, indent=2) + "\n")
    write("compare.md", chart.table(bench.results))
    if "create" in bench.results:
        write("compare.svg", chart.svg(bench.results["create"]))
    print(f"\n{chart.table(bench.results)}\nin {options.out}")


if __name__ == "__main__":
    main()
