#!/usr/bin/env python3
"""Lets a model write public text of its own, to calibrate and to train with.

    tools/sample_text.py build/release/bin MODEL.gguf FOLDER --count 250

asks isthmus-chat for one article after the other, each about another topic or of another kind, each with its own seed, and writes them to
FOLDER/0001.txt and so on. Articles that are there already stay, so a run goes on where it was stopped.

Only the standard library is used.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys

KINDS = ("an encyclopedia article", "a newspaper report", "a chapter of a history book", "a detailed review", "a biography")
TOPICS = (
    "a river in Europe", "the history of a small town", "a naval battle", "a video game", "a football season", "a species of bird", "a hurricane",
    "a famous singer", "the construction of a railway", "a television episode", "a king and his wars", "a chemical element",
    "a novel and its author", "a road in the mountains", "a church and its architecture", "a ship", "a species of mushroom", "an election",
    "a film and its reception", "a battalion in the war", "a rock band and its albums", "a tennis tournament", "an ancient temple", "a comet",
    "a politician", "a theatre play", "a warship and its guns", "a university", "a species of shark", "a painter", "a coin", "a bridge", "a trial",
    "a siege of a city", "a song and its music video", "an aircraft", "an island", "a chess player", "a cricket match", "a religious movement",
    "a disease", "a volcano", "a comic book", "a military campaign", "a lighthouse", "a mathematician", "a law", "a festival", "a species of frog",
    "a baseball pitcher")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=len(KINDS) * len(TOPICS), help="articles, at most %(default)s")
    parser.add_argument("--tokens", type=int, default=900, help="at most, of one article")
    parser.add_argument("--threads", type=int, default=0, help="0: one per hardware thread")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    articles = itertools.islice(itertools.product(TOPICS, KINDS), args.count)
    for seed, (topic, kind) in enumerate(articles, 1):
        path = os.path.join(args.folder, f"{seed:04}.txt")
        if os.path.exists(path):
            continue
        done = subprocess.run(
            [f"{args.bin}/isthmus-chat", "--model", args.model, "--local", "--prompt", f"Write {kind} about {topic}.", "--temperature", "1", "--top-p",
             "0.95", "--seed", str(seed), "--max-tokens", str(args.tokens), "--threads", str(args.threads), "--json"],
            capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"sample_text: {done.stderr}")
        with open(path + ".part", "w") as file:
            file.write(json.loads(done.stdout)["text"] + "\n")
        os.replace(path + ".part", path)
        print(f"\r{seed} of {args.count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
