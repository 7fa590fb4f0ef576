"""Golden logits from Hugging Face transformers in fp32, for the engine tests.

Tiny models (every config.json under test/data/engine gets logits.f32 beside it):

    python tools/refgen/models.py tiny test/data/engine

SmolLM2 (writes smollm2.json and smollm2.f32):

    python tools/refgen/models.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf test/data/engine

Needs torch, transformers, gguf and numpy (made with torch 2.11, transformers 5.23, gguf 0.19).

The weights of the tiny models are not stored: `tiny_weight` below and tiny_model.cpp in test/support
compute the same numbers from a tensor's name. Every number is a multiple of 2^-17 below 2, or one of
the large ones below, and so exact in fp32.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
import transformers

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
TINY_TOKENS = 24
LOGIT_STRIDE = 48  # of SmolLM2's 49,152 logits per row, every 48th is kept

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a small village by the sea, there lived an old fisherman who",
    "12 + 30 = 42\n7 + 8 = 15\n21 + 21 =",
    "Les enfants jouent dans le jardin. In English:",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nGive me three tips for staying healthy.<|im_end|>\n<|im_start|>assistant\n",
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes the air pressure is lower, so "
    "water boils at a lower temperature. This is why cooking pasta in the mountains takes longer: the "
    "water is not as hot. To make up for it, cooks use a pressure cooker, which",
]


def mix(x):
    x = ((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)) & np.uint64(MASK)
    x = ((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)) & np.uint64(MASK)
    return x ^ (x >> np.uint64(31))


def name_seed(name):
    """FNV-1a, 64 bits."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    return seed


def sixteen_bits(seed, count):
    """The top 16 bits of isthmus::counter_uniform(seed, 0 .. count - 1)."""
    key = mix(np.array([(seed + GOLDEN) & MASK], dtype=np.uint64))
    return mix(key + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)) >> np.uint64(48)


def tiny_weight(name, shape, outliers):
    count = int(np.prod(shape))
    u = (sixteen_bits(name_seed(name), count).astype(np.float32) - 32768) / 32768  # [-1, 1)
    if "norm" in name:
        return (1 + u / 4).reshape(shape)
    if name.endswith(".bias"):
        return (u / 2).reshape(shape)
    if "embed_tokens" not in name:
        u = (u / 4).reshape(shape)
        if outliers and name.endswith("layers.1.mlp.down_proj.weight"):
            u[7] *= 4096
        return u
    u = u.reshape(shape)
    if outliers:
        u[1::4, 5] *= 2.0**21
    return u


def write_floats(path, array):
    path.write_bytes(np.ascontiguousarray(array, dtype="<f4").tobytes())


def make_tiny(folder):
    raw = json.loads((folder / "config.json").read_text())
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    outliers = raw.get("isthmus_test_outliers", False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = tiny_weight(name, tuple(parameter.shape), outliers)
            parameter.copy_(torch.from_numpy(weight))
        ids = sixteen_bits(name_seed("tokens"), TINY_TOKENS) % np.uint64(raw["vocab_size"])
        output = model(torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True)
    largest = max(float(h.abs().max()) for h in output.hidden_states)
    logits = output.logits[0].numpy()
    write_floats(folder / "logits.f32", logits)
    print(f"{folder.name}: logits {logits.shape} in [{logits.min():.3f}, {logits.max():.3f}], "
          f"largest activation {largest:.4g}")


def make_smollm2(gguf, out):
    kwargs = {"gguf_file": gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **kwargs)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, attn_implementation="eager", **kwargs).eval()
    model.generation_config.eos_token_id = None  # go on behind the end of a reply
    cases, rows = [], []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].numpy()
        reply = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                               do_sample=False, max_new_tokens=64, temperature=None, top_p=None, top_k=None)
        greedy = reply[0, len(ids):].tolist()
        top = np.argsort(-logits, kind="stable")[:10].tolist()
        cases.append({"prompt": prompt, "ids": ids, "greedy": greedy, "top": top})
        rows.append(logits[::LOGIT_STRIDE])
        print(f"{len(ids)} tokens -> {tokenizer.decode(greedy)!r}")
    text = {"logit_stride": LOGIT_STRIDE, "cases": cases}
    (out / "smollm2.json").write_text(json.dumps(text, separators=(",", ":")) + "\n")
    write_floats(out / "smollm2.f32", np.stack(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tiny = commands.add_parser("tiny")
    tiny.add_argument("data", type=pathlib.Path)
    smollm2 = commands.add_parser("smollm2")
    smollm2.add_argument("gguf", type=pathlib.Path)
    smollm2.add_argument("data", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.command == "tiny":
        for path in sorted(arguments.data.glob("*/config.json")):
            make_tiny(path.parent)
    else:
        make_smollm2(arguments.gguf, arguments.data)


if __name__ == "__main__":
    main()
