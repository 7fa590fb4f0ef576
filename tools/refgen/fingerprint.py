"""Prints the fingerprint of a whole GGUF model: a second implementation of include/isthmus/model/fingerprint.h.

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


reader = gguf.GGUFReader(sys.argv[1])
architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
layers = int(reader.fields[architecture + ".block_count"].parts[-1][0])
parts = [[] for _ in range(3 + layers)]
for t in sorted(reader.tensors, key=lambda t: t.name):
    parts[part(t.name)].append(tensor(t))
print(digest(text("model"), *(digest(text("part"), *leaves) for leaves in parts)).hex())
