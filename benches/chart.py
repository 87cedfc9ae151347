"""Writes what compare.py measured: tables in Markdown, a chart in SVG."""

import math

COLOURS = {
    "this service": "#0b6e4f",
    "pgbench": "#b5651d",
    "usual transaction behind gRPC": "#a4243b",
    "empty rpc": "#8a8a8a",
}


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# --- Tables ---


def table(results):
    parts = {"machine": machine, "create": create, "read": plain("GetBooking, 256 in flight", "empty rpc"),
             "list": plain("ListBookings, 64 in flight, 1,000 bookings", "everything up to 1,000"),
             "hot": hot, "overload": overload, "memory": memory, "start": start, "distance": distance, "growth": growth}
    return "# The service and its peers\n\n" + "\n\n".join(
        make(results[part]) for part, make in parts.items() if part in results) + "\n"


def rows(head, lines):
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, rule, *lines])


def machine(seen):
    return "\n".join(f"- {key}: {value}" for key, value in seen.items()) + (
        "\n\nLoad, server and database share this machine. Medians of the runs; the kinds take turns.")


def create(seen):
    at = {(one["who"], one["in_flight"]): one for one in seen}
    best = max((one["per second"] for one in seen if one["who"] == "pgbench"), default=0)
    lines = []
    for in_flight in sorted({one["in_flight"] for one in seen}):
        ours = at["this service", in_flight]
        usual = at["usual transaction behind gRPC", in_flight]
        empty = at["empty rpc", in_flight]
        pgbench = at.get(("pgbench", in_flight))
        lines.append([
            f"{in_flight:,}", rate(ours), rate(pgbench), rate(usual), rate(empty),
            ratio(ours["per second"], best), ratio(ours["per second"], usual["per second"]),
            latency(ours), latency(usual)])
    head = ["in flight", "this service /s", "pgbench /s", "usual gRPC /s", "empty rpc /s", "to pgbench's best",
            "to the usual gRPC", "p50 / p99 ms", "usual: p50 / p99 ms"]
    return ("## CreateBooking, free slots over 100 resources\n\n" + rows(head, lines)
            + f"\n\npgbench's best: {best:,.0f} a second.\n\n![throughput and p99](compare.svg)")


def plain(title, compared):
    def make(seen):
        lines = [[who, rate(one), latency(one)] for who, one in seen.items()]
        ours = next(one for who, one in seen.items() if who.startswith("this service"))
        share = ratio(ours["per second"], seen[compared]["per second"])
        return f"## {title}\n\n" + rows(["", "/s", "p50 / p99 ms"], lines) + f"\n\nTo {compared}: {share}."
    return make


def hot(seen):
    count = seen["transactions per 1,000 rivals"]
    rest = {who: one for who, one in seen.items() if isinstance(one, dict)}
    made = plain("CreateBooking, 1,000 rivals for each slot, 1,024 in flight", "empty rpc")(rest)
    return made + f" Transactions of the database per 1,000 rivals: {count}."


def overload(seen):
    lines = [[what, f"{one['peak']:,.0f}", f"{one['goodput']:,.0f}", ratio(one["goodput"], one["peak"]),
              f"{one['refused per second']:,.0f}", f"{one['p99 ms']:,.0f}", f"{one['p99 from due ms']:,.0f}",
              f"{one['health p99 ms']:,.0f}",
              f"{one['unhealthy']:.0f}"] for what, one in seen.items()]
    head = ["what is scarce", "peak /s", "done /s", "of the peak", "refused /s", "p99 in the service, ms",
            "p99 from due, ms", "health: p99 ms", "failed"]
    return "## Twice as many creates as can be carried\n\n" + rows(head, lines)


def memory(seen):
    return f"## Memory\n\nResident: {seen['idle MiB']} MiB idle, {seen['peak MiB']} MiB at 1,024 in flight."


def start(seen):
    return ("## Start\n\nFrom the start of the process to SERVING, the database being up: median "
            f"{seen['median ms']:.0f} ms, worst {seen['worst ms']:.0f} ms.")


def distance(seen):
    here, there = seen["database here"]["p50 ms"], seen["database 20 ms away"]["p50 ms"]
    round_trip = seen["round trip"]
    return ("## A database 20 ms away\n\nCreateBooking, one in flight, p50: "
            f"{here:.2f} ms here, {there:.2f} ms there, which is {there / round_trip:.2f} round trips of "
            f"{round_trip:.2f} ms (as a statement that does nothing takes), all of it.")


def growth(seen):
    first = seen[0]
    kinds = [key for key in first if key != "bookings"]
    lines = [[one["bookings"], *(f"{one[kind]:.2f} ({one[kind] / first[kind]:.2f} ×)" for kind in kinds)]
             for one in seen]
    return "## Growth: p50 in ms, one in flight\n\n" + rows(["bookings", *kinds], lines)


def rate(one):
    return f"{one['per second']:,.0f}" if one else "–"


def ratio(a, b):
    return f"{a / b:.2f} ×" if b else "–"


def latency(one):
    return f"{one['p50 ms']:.2f} / {one['p99 ms']:.2f}"


# --- The chart ---

WIDTH, HEIGHT, PANEL, TOP, BOTTOM = 960, 420, 360, 60, 340
# Between two entries of the legend, and about as wide as a character of it.
LEGEND_GAP, CHARACTER = 40, 7.5


def svg(seen):
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="13">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    out += panel(seen, 80, "CreateBooking a second", "per second")
    out += panel(seen, 560, "p99, ms", "p99 ms")
    x = 80 - LEGEND_GAP
    for who, colour in COLOURS.items():
        x += LEGEND_GAP
        out.append(f'<line x1="{x}" y1="395" x2="{x + 24}" y2="395" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{x + 30}" y="399">{who}</text>')
        x += 30 + len(who) * CHARACTER
    return "\n".join([*out, "</svg>"]) + "\n"


def panel(seen, left, title, key):
    """Both axes are logarithmic."""
    counts = sorted({one["in_flight"] for one in seen})
    values = [max(one[key], 1e-3) for one in seen]
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    span = math.log(counts[-1] / counts[0]) or 1
    x = lambda count: left + math.log(count / counts[0]) / span * PANEL
    y = lambda value: BOTTOM - (math.log10(max(value, 1e-3)) - low) / (high - low) * (BOTTOM - TOP)
    out = [f'<text x="{left}" y="35" font-size="16">{title}</text>']
    for power in range(low, high + 1):
        out.append(f'<line x1="{left}" y1="{y(10**power):.1f}" x2="{left + PANEL}" y2="{y(10**power):.1f}" '
                   'stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    for count in counts:
        out.append(f'<text x="{x(count):.1f}" y="{BOTTOM + 20}" text-anchor="middle">{count:,}</text>')
    out.append(f'<text x="{left + PANEL / 2}" y="{BOTTOM + 38}" text-anchor="middle">in flight</text>')
    for who, colour in COLOURS.items():
        points = sorted((one["in_flight"], one[key]) for one in seen if one["who"] == who)
        line = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        out += [f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="3.5" fill="{colour}"/>'
                for count, value in points]
    return out
