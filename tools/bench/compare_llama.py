#!/usr/bin/env python3
"""Compares the speed of isthmus-bench and llama.cpp on one machine, in one run, on the same file, threads and tokens.

usage: tools/bench/compare_llama.py BIN_DIR MODEL.gguf [--precision fast,fine] [--repetitions 5] [--threads 1,2] [--python PYTHON]
                                    [--json FILE]

llama.cpp comes as the Python package llama-cpp-python, built from source for this machine. Unless --python names an interpreter
that has it, it is built once into a virtual environment under $ISTHMUS_CACHE (~/.cache/isthmus), which takes 10 to 30 minutes.

The two programs take turns in every repetition, so that what else the machine does hits both. llama.cpp runs with flash attention
on and off; the better median counts. Timed on its side is llama_decode alone (and waiting for it): a prompt is one call over a batch
whose last row gives logits, decoding is one such call per token behind a prompt of 16; choosing a token from the logits is left out.
isthmus-bench's time includes that choice. Both are fed the same fixed tokens, and both have run each case before it is timed.

Prints a Markdown table; --json writes every single figure too.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import venv

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
CMAKE_ARGS = "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"
CONTEXT = 16  # tokens held when decoding starts
CASES = {"decode 64": ("decode", 64), "prompt 128": ("prompt", 128), "prompt 512": ("prompt", 512)}


def token_ids(count, vocab_size):
    """What isthmus-bench feeds too (tools/isthmus-bench/subject.cpp)."""
    return [(7919 * i + 13) % vocab_size for i in range(count)]


# The part that runs inside the interpreter that has llama.cpp.

class Llama:
    def __init__(self, api, model, threads, flash):
        self.api = api
        options = api.llama_context_default_params()
        options.n_ctx = 1024
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = api.llama_init_from_model(model, options)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def decode(self, tokens):
        """Seconds that one llama_decode over `tokens` takes."""
        array = (self.api.llama_token * len(tokens))(*tokens)
        batch = self.api.llama_batch_get_one(array, len(tokens))
        start = time.perf_counter()
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.api.llama_synchronize(self.context)
        return time.perf_counter() - start

    def run(self, kind, count):
        """Tokens per second of a prompt of `count` tokens, or of `count` decoded ones."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        if kind == "prompt":
            return count / self.decode(token_ids(count, self.vocab_size))
        tokens = token_ids(CONTEXT + count, self.vocab_size)
        self.decode(tokens[:CONTEXT])
        return count / sum(self.decode([token]) for token in tokens[CONTEXT:])


def serve_llama(path):
    """Answers requests on standard input, one JSON object a line, until it closes."""
    import llama_cpp as api
    log = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(log, None)
    api.llama_backend_init()
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    print(json.dumps({"version": api.__version__, "build": api.llama_print_system_info().decode().strip()}), flush=True)
    contexts = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["threads"], request["flash"])
        if key not in contexts:
            contexts[key] = Llama(api, model, *key)
            for kind, count in CASES.values():
                contexts[key].run(kind, count)
        print(json.dumps({"tokens_per_s": contexts[key].run(request["kind"], request["count"])}), flush=True)


# The part that drives both programs.

def llama_python():
    """An interpreter with llama.cpp, built now if it is not there yet."""
    cache = os.environ.get("ISTHMUS_CACHE") or os.path.expanduser("~/.cache/isthmus")
    folder = os.path.join(cache, f"llama-cpp-{VERSION}")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python) or subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode != 0:
        print(f"building {PACKAGE} {VERSION} in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}"], check=True,
                       env={**os.environ, "CMAKE_ARGS": CMAKE_ARGS})
    return python


class LlamaProcess:
    def __init__(self, python, model):
        self.process = subprocess.Popen([python, os.path.abspath(__file__), "--serve-llama", model], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("compare_llama: llama.cpp's process ended early")
        return json.loads(line)

    def run(self, kind, count, threads, flash):
        print(json.dumps({"kind": kind, "count": count, "threads": threads, "flash": flash}), file=self.process.stdin, flush=True)
        return self.answer()


def isthmus(args, precision, kind, count, threads):
    command = [os.path.join(args.bin_dir, "isthmus-bench"), "--model", args.model, "--threads", str(threads), "--repetitions", "1",
               "--precision", precision, "--cases", f"whole/{kind}", f"--{kind}", str(count), "--context", str(CONTEXT), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)[0]["tokens_per_s"]["median"]


def measure(args, llama):
    """{(case, threads): {precision: [...], ..., "flash": [...], "plain": [...]}}, in tokens per second."""
    names = [*args.precision, "flash", "plain"]
    speeds = {(case, threads): {name: [] for name in names} for case in CASES for threads in args.threads}
    for repetition in range(args.repetitions):
        for (case, threads), found in speeds.items():
            kind, count = CASES[case]
            for name in names[repetition % len(names):] + names[:repetition % len(names)]:
                speed = isthmus(args, name, kind, count, threads) if name in args.precision else \
                    llama.run(kind, count, threads, name == "flash")["tokens_per_s"]
                found[name].append(speed)
        print(f"repetition {repetition + 1} of {args.repetitions} done", file=sys.stderr)
    return speeds


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


def summarise(case, threads, speeds):
    """One row of the result; llama.cpp counts with the better of its two attention kernels."""
    better = max(("flash", "plain"), key=lambda name: statistics.median(speeds[name]))
    row = {"case": case, "threads": threads, "flash_attention": better == "flash", "llama": summary(speeds[better]),
           "llama_other": summary(speeds["plain" if better == "flash" else "flash"])}
    for precision in speeds.keys() - {"flash", "plain"}:
        figures = summary(speeds[precision])
        row[precision] = {**figures, "ratio": figures["median"] / row["llama"]["median"]}
    return row


def text(figures):
    return f"{figures['median']:.1f} ({figures['min']:.1f} to {figures['max']:.1f})"


def machine():
    name = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as info:
            name = next((m.group(1).strip() for m in re.finditer(r"model name\s*:\s*(.+)", info.read())), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def main():
    if sys.argv[1:2] == ["--serve-llama"]:
        return serve_llama(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin_dir")
    parser.add_argument("model")
    parser.add_argument("--precision", default=["fast", "fine"], type=lambda words: [word for word in words.split(",") if word],
                        help="of isthmus-bench, separated by commas; empty: measure llama.cpp alone")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", default=[1, 2], type=lambda words: [int(word) for word in words.split(",")])
    parser.add_argument("--python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--json", help="write every figure to this file")
    args = parser.parse_args()

    llama = LlamaProcess(args.python or llama_python(), args.model)
    rows = [summarise(case, threads, speeds) for (case, threads), speeds in measure(args, llama).items()]
    about = {"machine": machine(), "load_average_at_end": os.getloadavg()[0], "model": os.path.basename(args.model), "repetitions": args.repetitions,
             "precision": args.precision, "llama": llama.about}
    print(f"{about['machine']}; {about['model']}; tokens per second, median (least to most) of {args.repetitions}; llama.cpp of "
          f"{PACKAGE} {llama.about['version']}, {llama.about['build']}\n\nLoad average at the end: "
          f"{about['load_average_at_end']:.1f}; far above the largest number of threads, other programs ran too.\n")
    print("| case | threads | llama.cpp | its better attention |" + "".join(f" {name} | ratio |" for name in args.precision))
    print("|---|---|---|---|" + "---|---|" * len(args.precision))
    for row in rows:
        cells = [row["case"], row["threads"], text(row["llama"]), "flash" if row["flash_attention"] else "plain"]
        for name in args.precision:
            cells += [text(row[name]), f"{row[name]['ratio']:.2f}"]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({**about, "cases": rows}, file, indent=1)


if __name__ == "__main__":
    main()
