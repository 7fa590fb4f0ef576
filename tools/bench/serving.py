#!/usr/bin/env python3
"""Measures a shared isthmus-server with isthmus-load: what lib/server/README.md states.

    tools/bench/serving.py BIN_DIR MODEL.gguf sessions --counts 1 4 16 64 256 --output sessions
    tools/bench/serving.py BIN_DIR MODEL.gguf budget --repetitions 3 --output budget
    tools/bench/serving.py BIN_DIR MODEL.gguf overload --duration 60 --output overload
    tools/bench/serving.py BIN_DIR MODEL.gguf soak --duration 1800 --output soak

Every command starts servers of its own on one thread, prints Markdown, and writes OUTPUT.json with all that was measured and
OUTPUT.svg with its picture. Only the standard library is used.
"""
import argparse
import json
import math
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from server import Server

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def ticks(most):
    """Round numbers from 0 to `most`, two to five steps apart."""
    unit = 10 ** math.floor(math.log10(most / 5))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= most / 5)
    return [step * i for i in range(int(most / step) + 1)]


def svg(title, x_label, panels, log_x=False):
    """Lines over one x axis: panels are (y label, {name: [(x, y), ...]}), drawn below each other from 0 up."""
    width, height, left, top = 640, 220, 70, 40
    place = math.log if log_x else float
    xs = [place(x) for _, lines in panels for points in lines.values() for x, _ in points]
    low, span = min(xs), max(max(xs) - min(xs), 1e-9)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 150}" height="{top + len(panels) * (height + 30) + 30}" '
             f'font-family="sans-serif" font-size="12"><text x="{left}" y="22" font-size="15">{title}</text>']
    for index, (y_label, lines) in enumerate(panels):
        y0 = top + index * (height + 30)
        most = max(y for points in lines.values() for _, y in points) * 1.05 or 1
        parts.append(f'<rect x="{left}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#999"/>'
                     f'<text transform="translate(14,{y0 + height / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>')
        for value in ticks(most):
            parts.append(f'<text x="{left - 5}" y="{y0 + height * (1 - value / most) + 4:.0f}" text-anchor="end">{value:g}</text>')
        for line, (name, points) in enumerate(lines.items()):
            colour = COLOURS[line % len(COLOURS)]
            drawn = [(left + width * (place(x) - low) / span, y0 + height * (1 - y / most)) for x, y in sorted(points)]
            parts.append(f'<polyline fill="none" stroke="{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)}"/>')
            if len(drawn) < 40:
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in drawn]
            parts.append(f'<text x="{left + width + 8}" y="{y0 + 16 + 16 * line}" fill="{colour}">{name}</text>')
    bottom = top + len(panels) * (height + 30) - 14
    shown = sorted({x for _, lines in panels for points in lines.values() for x, _ in points})
    shown = shown if len(shown) <= 10 else [shown[0] + (shown[-1] - shown[0]) * i / 5 for i in range(6)]
    parts += [f'<text x="{left + width * (place(x) - low) / span:.1f}" y="{bottom}" text-anchor="middle">{x:g}</text>' for x in shown]
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 18}" text-anchor="middle">{x_label}</text></svg>\n')
    return "".join(parts)


class MeasuredServer(Server):
    """An isthmus-server on one thread and its metrics."""

    def __init__(self, args, *flags, max_sessions=300):
        self.args = args
        self.home = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.metrics_port = probe.getsockname()[1]
        super().__init__(args.bin, args.model, self.home.name, "--threads", 1, "--max-client-sessions", 300, "--metrics",
                         f"127.0.0.1:{self.metrics_port}", "--max-sessions", max_sessions, *flags, stderr=subprocess.DEVNULL)

    def __exit__(self, *_):
        code = self.stop()
        self.home.cleanup()
        if code != 0:
            sys.exit(f"serving: the server ended with {code}")

    def load(self, *flags):
        finished = subprocess.run(
            [f"{self.args.bin}/isthmus-load", "--model", self.args.model, "--server", self.address, "--json", *map(str, flags)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=self.env)
        return json.loads(finished.stdout)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as reply:
            return sum(float(value) for value in re.findall(rf"^isthmus_{name}(?:{{.*}})? (\S+)$", reply.read().decode(), re.M))


class Sampler:
    """Memory and sessions of a server, every `pause` seconds while it is entered."""

    def __init__(self, server, pause):
        self.server, self.pause, self.samples, self.over = server, pause, [], threading.Event()

    def __enter__(self):
        self.start = time.monotonic()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        while True:
            self.samples.append({"s": round(time.monotonic() - self.start, 1), "resident_mb": self.server.metric("resident_bytes") / 1e6,
                                 "sessions": self.server.metric("sessions"), "tokens": self.server.metric("tokens_total")})
            if self.over.wait(self.pause):
                return


def ms(seconds):
    return f"{1e3 * seconds:.1f}"


def sessions(args):
    print("| sessions | tokens/s | between tokens, ms: median, p99 | failed | server MB |\n|---|---|---|---|---|")
    rows = []
    for count in args.counts:
        # What sessions may grow to is no limit here, only what they hold.
        with MeasuredServer(args, "--kv-memory", 65536) as server:
            # Every session is open before anything counts, and none ends meanwhile.
            run = server.load("--devices", count, "--prompt", 32, "--output", 4000, "--warm-up", 3 + count // 8, "--duration",
                              3 + count // 8 + args.duration, "--timeout", 600)
            memory = server.metric("resident_bytes") / 1e6
        gap = run["between_tokens_s"]
        print(f"| {count} | {run['tokens_per_s']:.1f} | {ms(gap['p50'])}, {ms(gap['p99'])} | "
              f"{sum(run['failed'].values())} | {memory:.0f} |", flush=True)
        rows.append(run | {"resident_mb": memory})
    of = {part: [(row["devices"], 1e3 * row["between_tokens_s"][part]) for row in rows] for part in ("p50", "p99")}
    picture = svg("Sessions that decode at the same time", "sessions",
                  [("tokens/s", {"all together": [(row["devices"], row["tokens_per_s"]) for row in rows]}),
                   ("ms between tokens", {"median": of["p50"], "p99": of["p99"]})], log_x=True)
    return rows, picture


def budget_row(args, budget):
    """Medians over repetitions; the two loads take turns."""
    chunked = budget <= 256
    flags = ["--token-budget", budget] + ([] if chunked else ["--max-step-tokens", 4096, "--max-client-waiting-rows", 4096])
    chunk = [] if chunked else ["--chunk", 4096]
    beside, alone = [], []
    for _ in range(args.repetitions):
        with MeasuredServer(args, *flags) as server:
            beside.append(server.load("--own-keys", "--devices", 8, "--prompt", 16, "--output", 2000, "--intruder", 2048, "--warm-up", 3, "--duration", 17, *chunk))
            alone.append(server.load("--own-keys", "--devices", 0, "--warm-up", 0, "--intruder", 2048, "--duration", 8, *chunk))

    if not all("intruder_s" in run for run in beside + alone):
        sys.exit("serving: the prompt did not come to its end; the machine does too much else")
    alone = [run["intruder_s"] for run in alone]

    def middle(part, which):
        return statistics.median(run[part][which] for run in beside)

    row = {"budget": budget, "before": middle("between_tokens_before_s", "p50"), "during": middle("between_tokens_during_s", "p50"),
           "during_p99": middle("between_tokens_during_s", "p99"), "prompt": statistics.median(run["intruder_s"] for run in beside),
           "alone": statistics.median(alone)}
    row["p99_ratio"] = statistics.median(r["between_tokens_during_s"]["p99"] / r["between_tokens_before_s"]["p50"] for r in beside)
    row["prompt_ratio"] = statistics.median(run["intruder_s"] / one for run, one in zip(beside, alone))
    return row


def budget(args):
    print("| token budget | between tokens before, median ms | during, median and p99 ms | p99 over the median before | the prompt, s | alone, s "
          "| times as long as alone |\n|---|---|---|---|---|---|---|")
    rows = []
    for size in args.budgets:
        row = budget_row(args, size)
        name = size if size <= 256 else "no chunking"
        print(f"| {name} | {ms(row['before'])} | {ms(row['during'])}, {ms(row['during_p99'])} | {row['p99_ratio']:.1f} | {row['prompt']:.2f} | "
              f"{row['alone']:.2f} | {row['prompt_ratio']:.2f} |", flush=True)
        rows.append(row)
    chunked = [r for r in rows if r["budget"] <= 256]
    ends = [pick(r["budget"] for r in chunked) for pick in (min, max)]
    picture = svg("A prompt of 2,048 tokens among 8 decoding sessions", "token budget",
                  [("p99 over median before", {"between tokens": [(r["budget"], r["p99_ratio"]) for r in chunked], "3": [(x, 3) for x in ends]}),
                   ("times as long as alone", {"the prompt": [(r["budget"], r["prompt_ratio"]) for r in chunked], "1.7": [(x, 1.7) for x in ends]})],
                  log_x=True)
    return rows, picture


def overload(args):
    closed = ["--devices", 8, "--prompt", 32, "--output", 32]
    with MeasuredServer(args, "--wait-when-full", max_sessions=8) as server:
        peak = server.load(*closed, "--duration", 20, "--warm-up", 3)
        rate = 2 * peak["completed"] / (peak["seconds"] + 3)
        calm = server.load("--devices", 1, "--prompt", 32, "--output", 64, "--duration", 6)
        with Sampler(server, 1) as memory:
            crowd = server.load("--devices", 64, "--rate", f"{rate:.3f}", "--prompt", 32, "--output", 32, "--duration", args.duration, "--warm-up", 3,
                                "--timeout", 600)
            after = server.load("--devices", 1, "--prompt", 32, "--output", 64, "--duration", 3, "--warm-up", 1)
    half = [s["resident_mb"] for s in memory.samples]
    result = {"peak": peak, "requests_per_s": rate, "crowd": crowd, "calm": calm, "after": after, "samples": memory.samples}
    print(f"| peak, tokens/s | at twice its rate ({rate:.1f} requests/s, {args.duration:.0f} s) | share | told to come back | failed | "
          "resident MB: first, last, most | between tokens before and a second after, median ms |\n|---|---|---|---|---|---|---|")
    print(f"| {peak['tokens_per_s']:.1f} | {crowd['tokens_per_s']:.1f} | {crowd['tokens_per_s'] / peak['tokens_per_s']:.2f} | {crowd['told_busy']} | "
          f"{crowd['failed'] or 'none'} | {half[0]:.1f}, {half[-1]:.1f}, {max(half):.1f} | {ms(calm['between_tokens_s']['p50'])}, "
          f"{ms(after['between_tokens_s']['p50'])} |")
    return result, svg("Twice the load that a server can bear", "seconds",
                       [("resident MB", {"server": [(s["s"], s["resident_mb"]) for s in memory.samples]}),
                        ("sessions", {"open": [(s["s"], s["sessions"]) for s in memory.samples]})])


def growth_mb_per_hour(samples):
    """Least squares over the second half: by then every buffer has had its largest use."""
    late = samples[len(samples) // 2:]
    if len(late) < 2:
        return 0.0
    x, y = [s["s"] for s in late], [s["resident_mb"] for s in late]
    return 3600 * statistics.covariance(x, y) / statistics.variance(x)


def soak(args):
    """Steady devices with four cuts, long prompts at random times, and devices with new keys that come and go."""
    end = time.monotonic() + args.duration
    failures = {}

    def note(run):
        for code, count in run["failed"].items():
            failures[code] = failures.get(code, 0) + count

    def come_and_go():
        while time.monotonic() < end - 25:
            note(server.load("--devices", 4, "--own-keys", "--cuts", "1,20", "--prompt", 20, "--output", 20, "--duration", 20, "--timeout", 300))

    lasting = ["--warm-up", 0, "--duration", args.duration, "--timeout", 300]
    with MeasuredServer(args, "--wait-when-full", max_sessions=24) as server, Sampler(server, max(1, args.duration / 360)) as memory:
        threads = [threading.Thread(target=come_and_go),
                   threading.Thread(target=lambda: note(server.load("--devices", 6, "--cuts", "0,3,12,24", "--prompt", 48, "--output", 64, *lasting))),
                   threading.Thread(target=lambda: note(server.load("--devices", 3, "--rate", 0.1, "--prompt", 700, "--output", 32, *lasting)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    samples = [s for s in memory.samples if s["s"] <= args.duration]
    first = samples[len(samples) // 10]["resident_mb"]
    print("| minutes | tokens | failed | resident MB after a tenth, at the end, most | growth in the second half, MB an hour |\n|---|---|---|---|---|")
    print(f"| {args.duration / 60:.0f} | {samples[-1]['tokens']:.0f} | {failures or 'none'} | {first:.1f}, {samples[-1]['resident_mb']:.1f}, "
          f"{max(s['resident_mb'] for s in samples):.1f} | {growth_mb_per_hour(samples):.1f} |")
    picture = svg("A server under mixed load", "minutes", [("resident MB", {"server": [(s["s"] / 60, s["resident_mb"]) for s in samples]}),
                                                            ("sessions", {"open": [(s["s"] / 60, s["sessions"]) for s in samples]})])
    return {"failed": failures, "samples": samples, "growth_mb_per_hour": growth_mb_per_hour(samples)}, picture


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("model")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, duration in (("sessions", sessions, 15), ("budget", budget, 0), ("overload", overload, 60), ("soak", soak, 1800)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--output", required=True, help="where to write OUTPUT.json and OUTPUT.svg")
        if duration:
            command.add_argument("--duration", type=float, default=duration, help="seconds")
        if name == "sessions":
            command.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
        if name == "budget":
            command.add_argument("--budgets", type=int, nargs="+", default=[32, 40, 48, 64, 128, 4096],
                                 help="4096: no chunking")
            command.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    result, picture = args.run(args)
    with open(args.output + ".json", "w") as file:
        json.dump(result, file, indent=1)
    with open(args.output + ".svg", "w") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
