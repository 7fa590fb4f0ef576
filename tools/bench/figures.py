#!/usr/bin/env python3
"""Measures what the README states: load time, memory, speed and traffic, on one machine in one run.

usage: tools/bench/figures.py BIN_DIR MODEL.gguf [--repetitions N]

Prints Markdown. Every figure is the median of N runs, with the smallest and the largest. Before anything is timed, placements
that must give the unsplit model's tokens run once each and are compared with it, and so is each of their runs after that. Traffic
is counted by a TCP proxy between the two processes, so encryption and protocol overhead are in it.
"""
import argparse
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass

from server import Server

PROMPT = "Explain in a few sentences why the sky is blue and why sunsets are red."
TOKENS = 64


class CountingProxy:
    """Forwards connections to a port on loopback and counts the bytes each way."""

    def __init__(self, port):
        self.target = port
        self.up = self.down = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.pump, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, "down"), daemon=True).start()

    def pump(self, source, sink, direction):
        try:
            while data := source.recv(1 << 16):
                setattr(self, direction, getattr(self, direction) + len(data))
                sink.sendall(data)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@dataclass
class Placement:
    """Where layers run. Without a server's model all of them run on the device; `exact`: its tokens are the unsplit model's."""
    name: str
    flags: list
    server_model: str = None
    device_model: str = None
    exact: bool = False


def chat(bin_dir, model, home, flags):
    command = [f"{bin_dir}/isthmus-chat", "--model", model, "--prompt", PROMPT, "--max-tokens", str(TOKENS), "--json", *flags]
    finished = subprocess.run(command, capture_output=True, text=True, check=True,
                              env={**os.environ, "ISTHMUS_HOME": home})
    return json.loads(finished.stdout)


def spread(values, digits=1):
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def run(args, home, placement):
    """One run: what isthmus-chat says, what the server says, and the bytes that crossed, up and down."""
    if placement.server_model is None:
        return chat(args.bin_dir, args.model, home, ["--local", *placement.flags]), None, None
    server = Server(args.bin_dir, placement.server_model, home, "--threads", 1, stderr=subprocess.PIPE)
    host, key = server.address.split("?")
    host, port = host.rsplit(":", 1)
    proxy = CountingProxy(int(port))
    reply = chat(args.bin_dir, placement.device_model or args.model, home, ["--server", f"{host}:{proxy.port}?{key}", *placement.flags])
    server.stop()
    told = {name: float(value) for name, value in re.findall(r"(load_s|peak_resident_mb)=([\d.]+)", server.log)}
    return reply, told, (proxy.up, proxy.down)


def checked_run(args, home, placement, expected):
    done = run(args, home, placement)
    if placement.exact and done[0]["token_ids"] != expected:
        sys.exit(f"figures: '{placement.name}' generates other tokens than the unsplit model")
    return done


def measure(args, home, placement, expected):
    """One row of the table: runs one placement N times."""
    replies, servers, traffic = zip(*(checked_run(args, home, placement, expected) for _ in range(args.repetitions)))
    row = [placement.name, spread([r["tokens_per_s"] for r in replies]), spread([r["time_to_first_token_s"] for r in replies], 2),
           spread([r["load_s"] for r in replies], 2), f"{statistics.median(r['peak_resident_mb'] for r in replies):.0f}"]
    if placement.server_model:
        tokens = [len(r["prompt_token_ids"]) + len(r["token_ids"]) - 1 for r in replies]
        row += [f"{statistics.median(s['load_s'] for s in servers):.2f}",
                f"{statistics.median(s['peak_resident_mb'] for s in servers):.0f}",
                *(f"{statistics.median(t[way] / n for t, n in zip(traffic, tokens)):.0f}" for way in (0, 1))]
    else:
        row += ["", "", "", ""]
    print("| " + " | ".join(row) + " |", flush=True)


def cpu_name():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin_dir")
    parser.add_argument("model")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()

    print(f"{cpu_name()}, {os.cpu_count()} cores; {os.path.basename(args.model)}; prompt and {TOKENS} greedy tokens; "
          f"median (least to most) of {args.repetitions} runs.\n")
    with tempfile.TemporaryDirectory() as home:
        front, back = f"{home}/front.gguf", f"{home}/back.gguf"
        slicer = [f"{args.bin_dir}/isthmus-slice", "--model", args.model]
        subprocess.run([*slicer, "--layers", "0:3", "--embedding", "--output", front], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*slicer, "--layers", "3:30", "--head", "--output", back], check=True, stdout=subprocess.DEVNULL)
        whole = Placement("whole model, 1 thread", ["--threads", "1"], exact=True)
        split = ["--threads", "1", "--cut", "3"]
        placements = [
            whole,
            Placement("whole model, 2 threads", ["--threads", "2"], exact=True),
            Placement("cut 3, f32", [*split, "--codec", "f32"], args.model, exact=True),
            Placement("cut 3, f16", [*split, "--codec", "f16"], args.model),
            Placement("cut 3, default codec", split, args.model),
            Placement("cut 3, tail 30, default codec", [*split, "--tail", "30"], args.model),
            Placement("cut 15, default codec", ["--threads", "1", "--cut", "15"], args.model),
            Placement("cut 3, f32, sliced files", [*split, "--codec", "f32"], back, front, exact=True),
        ]
        expected = run(args, home, whole)[0]["token_ids"]
        for placement in placements:
            if placement.exact:
                checked_run(args, home, placement, expected)
        print("| placement | tokens/s | first token s | device load s | device MB | server load s | server MB | bytes up/token "
              "| bytes down/token |")
        print("|---|---|---|---|---|---|---|---|---|")
        for placement in placements:
            measure(args, home, placement, expected)
        sizes = [f"{os.path.getsize(path) / 1e6:.1f} MB" for path in (args.model, front, back)]
        print(f"\nFiles: whole model {sizes[0]}, front slice {sizes[1]}, back slice {sizes[2]}.")


if __name__ == "__main__":
    main()
