#!/usr/bin/env python3
"""Measures split decoding under wide-area conditions, and compares it with what the planner predicts.

    tools/bench/wan.py build/release/bin MODEL.gguf --output wan.json

runs isthmus-chat against isthmus-server through link_emulator for every link, cut and codec of a grid. Profiles are made first, by isthmus-
plan (profile of this machine, link through the emulator), or given (--profile). A cell's time to the first token is that of a long prompt.
Its time per token is that of a reply to a short one; replies of one token tell what of the split into device, codec, wire and server, as
the device sees it, is the prompt's. Then the planner chooses freely among all cuts and the grid's codecs under a limit of device memory
that no whole model fits, and its choice runs against the grid's three fastest cells that the limit allows, taking turns. Greedy, raw
prompts. Prints a table and writes JSON; of each cell link, cut, spec, measured and predicted seconds, bytes, and a hash of the tokens,
which a codec may change and a link may not (then it fails at once); and of each link the planner's choice and its rivals.

Only the standard library is used.
"""
import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile

from server import Server

LINKS = {  # round trip ms, Mbit/s
    "loopback": (0, 0),
    "20 ms, 100 Mbit/s": (20, 100),
    "80 ms, 20 Mbit/s": (80, 20),
    "150 ms, 2 Mbit/s": (150, 2),
}
PARTS = ("device", "codec", "wire", "server")
SENTENCE = "The harbour was quiet, and the keeper wrote down what he had seen: three ships, a storm, and a light far out at sea. "


class Cell:
    """One link, with everything that runs behind it."""

    def __init__(self, args, home, link):
        self.args = args
        self.server = Server(args.bin, args.model, home, "--threads", args.threads)
        self.env = self.server.env
        address = self.server.address
        self.emulator = None
        if link != (0, 0):
            host, key = address.removeprefix("isthmus://").split("?")
            rtt_ms, mbit = link
            self.emulator = subprocess.Popen(
                [f"{args.bin}/link_emulator", "--to", host, "--delay-ms", str(rtt_ms / 2), "--up-mbit", str(mbit), "--down-mbit", str(mbit)],
                stdout=subprocess.PIPE, text=True)
            address = f"isthmus://127.0.0.1:{self.emulator.stdout.readline().strip()}?{key}"
        self.address = address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.emulator:
            self.emulator.terminate()
            self.emulator.wait()
        self.server.stop()

    def probe(self, path):
        run([f"{self.args.bin}/isthmus-plan", "link", "--server", self.address, "--output", path, "--probes", "30", "--timeout", "20"], self.env)

    def chat(self, cut, spec, prompt, max_tokens):
        out = run([f"{self.args.bin}/isthmus-chat", "--model", self.args.model, "--server", self.address, "--cut", str(cut), "--codec", spec,
                   "--threads", str(self.args.threads), "--raw", "--prompt", prompt, "--max-tokens", str(max_tokens), "--json",
                   "--context", "1024"], self.env)
        return json.loads(out)


def run(command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"wan: {' '.join(command)}\n{done.stderr}")
    return done.stdout


def measure(cell, cut, spec, prompt, tokens, repetitions):
    """Medians over repetitions of the time to the first token, and, behind a short prompt, of the parts of a later token."""
    firsts, totals, replies, parts = [], [], [], {part: [] for part in PARTS}
    for _ in range(repetitions):
        long = cell.chat(cut, spec, prompt, 1)
        one = cell.chat(cut, spec, SENTENCE, 1)
        many = cell.chat(cut, spec, SENTENCE, tokens + 1)
        replies.append(many["token_ids"])
        count = len(many["token_ids"]) - 1
        if count < 1:
            sys.exit("wan: the reply ended at once: use another prompt")
        firsts.append(long["time_to_first_token_s"])
        totals.append(1 / many["tokens_per_s"])
        for part in PARTS:
            parts[part].append((many["time_s"][part] - one["time_s"][part]) / count)
    if any(reply != replies[0] for reply in replies):
        sys.exit(f"wan: cut {cut} {spec} replies with other tokens from one time to the next")
    digest = hashlib.sha256(json.dumps(replies[0]).encode()).hexdigest()[:16]
    measured = {part: statistics.median(values) for part, values in parts.items()}
    return {"first_token": statistics.median(firsts), "token": statistics.median(totals), **measured, "prompt_tokens": len(long["prompt_token_ids"]),
            "short_prompt_tokens": len(one["prompt_token_ids"]), "bytes_up": (many["bytes_up"] - one["bytes_up"]) / count,
            "bytes_down": (many["bytes_down"] - one["bytes_down"]) / count, "tokens_hash": digest}


def check_tokens(row, rows):
    """Ends the program unless cells of the same cut and codec have the same reply on every link."""
    for other in rows:
        if (other["cut"], other["spec"]) == (row["cut"], row["spec"]) and other["measured"]["tokens_hash"] != row["measured"]["tokens_hash"]:
            sys.exit(f"wan: cut {row['cut']} {row['spec']} has other tokens on '{row['link']}' than on '{other['link']}'")


def plan(args, profile, link_path, prompt_tokens, reply_tokens, *flags):
    out = run([f"{args.bin}/isthmus-plan", "--device", profile, "--server-profile", profile, "--link", link_path, "--no-local", "--no-tail",
               "--front-bits", "8", "--back-bits", "8", "--kv-bits", "16", "--contexts", "1024", "--prompt", str(prompt_tokens), "--reply",
               str(reply_tokens), "--json", *flags])
    return json.loads(out)


def predict(args, profile, link_path, cut, spec, prompt_tokens, reply_tokens):
    """The planner's answer when there is nothing to choose."""
    for entry in plan(args, profile, link_path, prompt_tokens, reply_tokens, "--min-cut", str(cut), "--specs", spec)["best_per_cut"]:
        if entry["plan"]["cut"] == cut:
            return entry["predicted"]
    sys.exit(f"wan: no prediction for cut {cut}")


def choose(args, cell, profile, link_path, rows):
    """What the planner takes under the limit of device memory, measured in turns with the fastest cells that keep to it."""
    prompt_tokens = rows[0]["measured"]["short_prompt_tokens"]
    memory = args.device_memory or math.ceil(statistics.median(r["predicted"]["device_memory"] for r in rows) / 1e6)
    answer = plan(args, profile, link_path, prompt_tokens, args.tokens, "--specs", args.specs, "--limit", f"device_memory={memory}MB")
    chosen = (answer["plan"]["cut"], answer["plan"]["codec_up"])
    allowed = [r for r in rows if r["predicted"]["device_memory"] <= memory * 1e6]
    fastest = sorted(allowed, key=lambda r: r["measured"]["token"])[:3]
    rivals = list(dict.fromkeys([chosen, *((r["cut"], r["spec"]) for r in fastest)]))
    times = {rival: [] for rival in rivals}
    for _ in range(2 * args.repetitions + 1):
        for cut, spec in rivals:
            times[cut, spec].append(1 / cell.chat(cut, spec, SENTENCE, args.tokens + 1)["tokens_per_s"])
    token = {rival: statistics.median(values) for rival, values in times.items()}
    best = min(token, key=token.get)
    print(f"{rows[0]['link']:18} with {memory} MB the plan is cut {chosen[0]} {chosen[1]}: {1e3 * token[chosen]:.2f} ms; measured best cut "
          f"{best[0]} {best[1]}: {1e3 * token[best]:.2f} ms ({100 * (token[chosen] / token[best] - 1):+.1f} %)", flush=True)
    return {"link": rows[0]["link"], "device_memory_mb": memory, "chosen": chosen, "rivals": [{"cut": c, "spec": s, "token": t} for (c, s), t in token.items()]}


def error(predicted, measured):
    return predicted / measured - 1 if measured > 0 else 0.0


def summary(rows):
    print(f"\n{'what':28} within 10 %   median error   worst")
    for name, errors in (
            ("time per token", [error(r["predicted"]["token"], r["measured"]["token"]) for r in rows]),
            ("time to first token", [error(r["predicted"]["first_token"], r["measured"]["first_token"]) for r in rows]),
            ("token less the round trip", [error(r["predicted"]["token"] - r["rtt_s"], max(1e-9, r["measured"]["token"] - r["rtt_s"])) for r in rows]),
            *((part, [error(r["predicted"][part], r["measured"][part]) for r in rows]) for part in PARTS)):
        within = sum(abs(e) <= 0.1 for e in errors)
        print(f"{name:28} {within:4} of {len(errors):3}   {100 * statistics.median(abs(e) for e in errors):8.1f} %   {100 * max(errors, key=abs):+8.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("model")
    parser.add_argument("--output")
    parser.add_argument("--profile", help="of this machine, by isthmus-plan profile; measured when absent")
    parser.add_argument("--cuts", default="0,1,3,6,10,15,22,28")
    parser.add_argument("--specs", default="f32;f16;split:4|rotate|int4|rans")
    parser.add_argument("--links", default=";".join(LINKS), help="names, separated by semicolons")
    parser.add_argument("--sentences", type=int, default=10, help="of the long prompt, 27 tokens each")
    parser.add_argument("--tokens", type=int, default=16, help="decoded behind the first")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="on each side")
    parser.add_argument("--device-memory", type=float,
                        help="MB that the planner may use on the device when it chooses; when absent the median of the grid's cells")
    args = parser.parse_args()
    cuts, specs = [int(c) for c in args.cuts.split(",")], args.specs.split(";")
    prompt = SENTENCE * args.sentences
    rows, choices = [], []
    with tempfile.TemporaryDirectory() as home:
        profile = args.profile or f"{home}/profile.json"
        if not args.profile:
            run([f"{args.bin}/isthmus-plan", "profile", "--model", args.model, "--threads", str(args.threads), "--weight-bits", "8",
                 "--kv-bits", "16", "--specs", args.specs, "--output", profile])
        for name in args.links.split(";"):
            with Cell(args, home, LINKS[name]) as cell:
                link_path = f"{home}/link.json"
                cell.probe(link_path)
                with open(link_path) as file:
                    rtt_s = json.load(file)["rtt_seconds"]
                for cut in cuts:
                    for spec in specs:
                        measured = measure(cell, cut, spec, prompt, args.tokens, args.repetitions)
                        short = predict(args, profile, link_path, cut, spec, measured["short_prompt_tokens"], args.tokens)
                        long = predict(args, profile, link_path, cut, spec, measured["prompt_tokens"], 1)
                        predicted = {"token": short["metrics"]["token"], "first_token": long["metrics"]["first_token"],
                                     "device_memory": short["metrics"]["device_memory"], **short["token_seconds"]}
                        row = {"link": name, "rtt_s": rtt_s, "cut": cut, "spec": spec, "measured": measured, "predicted": predicted}
                        check_tokens(row, rows)
                        rows.append(row)
                        print(f"{name:18} cut {cut:2} {spec:26} token {1e3 * measured['token']:7.2f} ms ({100 * error(predicted['token'], measured['token']):+5.1f} %)"
                              f"  first {1e3 * measured['first_token']:8.1f} ms ({100 * error(predicted['first_token'], measured['first_token']):+5.1f} %)"
                              + "".join(f"  {part} {1e3 * measured[part]:.2f}/{1e3 * predicted[part]:.2f}" for part in PARTS), flush=True)
                choices.append(choose(args, cell, profile, link_path, [r for r in rows if r["link"] == name]))
    summary(rows)
    if args.output:
        with open(args.output, "w") as file:
            json.dump({"cells": rows, "choices": choices}, file, indent=1)


if __name__ == "__main__":
    main()
