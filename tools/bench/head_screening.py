#!/usr/bin/env python3
"""How many rows of a head must be rescored when a 4-bit copy of it is read first? The reason why there is no such screening.

usage: tools/bench/head_screening.py MODEL.gguf TEXT_FILE        (needs numpy, gguf, torch and transformers)

A greedy choice could read a 4-bit copy of the head (half the bytes), bound the error of every score, and rescore only the rows that may
still be the largest. The choice stays exact only under a proven bound. For the activations behind 256 tokens of a text this prints how
many rows three such bounds leave: the norms of a row's rounding errors times the norm of the activations, the same group by group, and
the largest error of each group times the sum of its activations' magnitudes.
"""
import sys

import numpy
import torch
import transformers
from gguf import GGUFReader
from gguf.quants import dequantize

GROUP, LEVELS, TOKENS, EVERY = 32, 15, 256, 8


def rounded(head):
    groups = head.reshape(len(head), -1, GROUP)
    low = groups.min(2, keepdims=True)
    step = numpy.maximum((groups.max(2, keepdims=True) - low) / LEVELS, 1e-12)
    return (low + numpy.round((groups - low) / step) * step).reshape(head.shape)


def inputs_of_head(path, text):
    folder, name = path.rsplit("/", 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, torch_dtype=torch.float32)
    with torch.no_grad():
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :TOKENS]
        return model.model(ids).last_hidden_state[0, ::EVERY].numpy()


def main():
    path, text_path = sys.argv[1:]
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    tensor = tensors.get("output.weight", tensors["token_embd.weight"])
    head = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    with open(text_path) as file:
        x = inputs_of_head(path, file.read(20 * TOKENS))
    errors = (head - rounded(head)).reshape(len(head), -1, GROUP)
    x_groups = x.reshape(len(x), -1, GROUP)
    scores = x @ rounded(head).T
    bounds = {
        "norm of the row": numpy.linalg.norm(x, axis=1)[:, None] * numpy.linalg.norm(errors, axis=(1, 2))[None],
        "norms of the groups": numpy.linalg.norm(x_groups, axis=2) @ numpy.linalg.norm(errors, axis=2).T,
        "largest errors of the groups": numpy.abs(x_groups).sum(2) @ numpy.abs(errors).max(2).T,
    }
    for name, bound in bounds.items():
        left = (scores + bound >= (scores - bound).max(1, keepdims=True)).sum(1)
        print(f"{name}: {int(numpy.median(left))} of {len(head)} rows are left (median of {len(x)} tokens, at least {left.min()})")


if __name__ == "__main__":
    main()
