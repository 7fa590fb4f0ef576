#!/usr/bin/env python3
"""Measures what the README states: load time, memory, speed and traffic, on one machine in one run.

usage: tools/bench/figures.py BIN_DIR MODEL.gguf [--repetitions N]

Prints Markdown. Every figure is the median of N runs, with the smallest and the largest. Before anything is timed, the tokens of
the split runs are compared with those of the unsplit run. Traffic is counted by a TCP proxy between the two processes, so
encryption and protocol overhead are in it.
"""
import argparse
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading

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


class Server:
    """An isthmus-server on a free port, and what it says about itself."""

    def __init__(self, bin_dir, model, home, flags):
        command = [f"{bin_dir}/isthmus-server", "--model", model, "--bind", "127.0.0.1:0", "--allow-any-client", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "ISTHMUS_HOME": home})
        self.address = self.process.stdout.readline().strip()

    def port(self):
        return int(re.search(r":(\d+)\?", self.address).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        log = self.process.communicate()[1]
        return {name: float(value) for name, value in re.findall(r"(load_s|peak_resident_mb)=([\d.]+)", log)}


def chat(bin_dir, model, home, flags):
    command = [f"{bin_dir}/isthmus-chat", "--model", model, "--prompt", PROMPT, "--max-tokens", str(TOKENS), "--json", *flags]
    finished = subprocess.run(command, capture_output=True, text=True, check=True,
                              env={**os.environ, "ISTHMUS_HOME": home})
    return json.loads(finished.stdout)


def spread(values, digits=1):
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def measure(name, args, home, flags, server_model=None, device_model=None, expected=None):
    """One row of the table: runs one placement N times. A server_model of None means no server."""
    runs, servers, traffic = [], [], []
    for _ in range(args.repetitions):
        if server_model is None:
            runs.append(chat(args.bin_dir, args.model, home, ["--local", *flags]))
            continue
        server = Server(args.bin_dir, server_model, home, ["--threads", "1"])
        proxy = CountingProxy(server.port())
        address = server.address.replace(f":{server.port()}?", f":{proxy.port}?")
        run = chat(args.bin_dir, device_model or args.model, home, ["--server", address, *flags])
        tokens = len(run["prompt_token_ids"]) + len(run["token_ids"]) - 1
        runs.append(run)
        traffic.append((run["bytes_up"] / tokens, proxy.up / tokens, run["bytes_down"] / tokens, proxy.down / tokens))
        servers.append(server.stop())
    if expected is not None and runs[0]["token_ids"] != expected:
        sys.exit(f"figures: '{name}' generates other tokens than the unsplit model")
    row = [name, spread([r["tokens_per_s"] for r in runs]), spread([r["time_to_first_token_s"] for r in runs], 2),
           spread([r["load_s"] for r in runs], 2), f"{statistics.median(r['peak_resident_mb'] for r in runs):.0f}"]
    if servers:
        row += [f"{statistics.median(s['load_s'] for s in servers):.2f}",
                f"{statistics.median(s['peak_resident_mb'] for s in servers):.0f}"]
        row += [f"{statistics.median(t[1] for t in traffic):.0f}", f"{statistics.median(t[3] for t in traffic):.0f}"]
    else:
        row += ["", "", "", ""]
    print("| " + " | ".join(row) + " |", flush=True)
    return runs[0]["token_ids"]


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
    print("| placement | tokens/s | first token s | device load s | device MB | server load s | server MB | bytes up/token "
          "| bytes down/token |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        whole = measure("whole model, 1 thread", args, home, ["--threads", "1"])
        measure("whole model, 2 threads", args, home, ["--threads", "2"], expected=whole)
        split = ["--threads", "1", "--cut", "3"]
        measure("cut 3, f32", args, home, [*split, "--codec", "f32"], args.model, expected=whole)
        measure("cut 3, f16", args, home, [*split, "--codec", "f16"], args.model)
        measure("cut 3, default codec", args, home, split, args.model)
        measure("cut 3, tail 30, default codec", args, home, [*split, "--tail", "30"], args.model)
        measure("cut 15, default codec", args, home, ["--threads", "1", "--cut", "15"], args.model)
        front, back = f"{home}/front.gguf", f"{home}/back.gguf"
        slicer = [f"{args.bin_dir}/isthmus-slice", "--model", args.model]
        subprocess.run([*slicer, "--layers", "0:3", "--embedding", "--output", front], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*slicer, "--layers", "3:30", "--head", "--output", back], check=True, stdout=subprocess.DEVNULL)
        measure("cut 3, f32, sliced files", args, home, [*split, "--codec", "f32"], back, front, expected=whole)
        sizes = [f"{os.path.getsize(path) / 1e6:.1f} MB" for path in (args.model, front, back)]
        print(f"\nFiles: whole model {sizes[0]}, front slice {sizes[1]}, back slice {sizes[2]}.")


if __name__ == "__main__":
    main()
