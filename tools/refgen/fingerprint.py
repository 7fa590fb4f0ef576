"""Prints the fingerprint of a whole GGUF Llama: a second implementation of include/isthmus/model/fingerprint.h.

    python tools/refgen/fingerprint.py model.gguf
"""
import hashlib
import struct
import sys

import gguf


def digest(*pieces: bytes) -> bytes:
    return hashlib.blake2b(b"".join(pieces), digest_size=32).digest()


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str) -> bytes:
    return number(len(value.encode())) + value.encode()


def tensor(t: gguf.ReaderTensor) -> bytes:
    shape = [int(n) for n in reversed(t.shape)]
    data = t.data.tobytes()
    return digest(text("tensor"), text(t.name), number(int(t.tensor_type)), number(len(shape)), *map(number, shape),
                  number(len(data)), data)


def part(name: str) -> int:
    if name.startswith("blk."):
        return 3 + int(name.split(".")[1])
    return {"token_embd.weight": 1, "output_norm.weight": 2, "output.weight": 2}.get(name, 0)


def bits(value: float) -> bytes:
    return number(struct.unpack("<I", struct.pack("<f", value))[0])


def field(name: str):
    return reader.fields["llama." + name].parts[-1][0]


def config() -> bytes:
    heads, hidden = int(field("attention.head_count")), int(field("embedding_length"))
    size = hidden // heads
    angles = [float(field("rope.freq_base")) ** (-2.0 * i / size) for i in range(size // 2)]
    numbers = [layers, hidden, heads, int(field("attention.head_count_kv")), size, int(field("feed_forward_length")),
               len(reader.fields["tokenizer.ggml.tokens"].data)]
    floats = [float(field("attention.layer_norm_rms_epsilon")), 0.0, 1.0, size ** -0.5, 0.0, 0.0]
    tied = all(t.name != "output.weight" for t in reader.tensors)
    silu, no, adjacent_pairs = 0, 0, 0
    return digest(text("config"), *map(number, numbers), *map(bits, floats), number(silu), *map(number, [no, no, no, no, int(tied)]),
                  number(adjacent_pairs), number(len(angles)), *map(bits, angles), number(0), *[number(no)] * 2 * layers)


reader = gguf.GGUFReader(sys.argv[1])
if bytes(reader.fields["general.architecture"].parts[-1]).decode() != "llama":
    sys.exit("fingerprint: only for llama")
layers = int(field("block_count"))
parts = [[] for _ in range(3 + layers)]
for t in sorted(reader.tensors, key=lambda t: t.name):
    parts[part(t.name)].append(tensor(t))
print(digest(text("model"), *(digest(text("part"), *leaves) for leaves in parts), config()).hex())
