"""Golden weight blocks for test/unit/kernels: random bytes and what the `gguf` package reads from them.

    pip install gguf==0.19.0 numpy
    python tools/refgen/quants.py test/data/quants.bin

The file is a sequence of records, little-endian: GGUF type number (u32), number of bytes (u32), number of values (u32),
the bytes, the values (f32). Scales are finite and of both signs, subnormal ones among them.
"""

import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where the binary16 numbers of a block lie.
HALF_FLOATS = {
    Type.F16: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def random_half(rng):
    if rng.random() < 0.2:
        return np.float16(rng.integers(-1023, 1024) * 2.0**-24)
    return np.float16(rng.normal() * 10.0 ** rng.integers(-4, 3))


def random_blocks(rng, kind, count):
    block_bytes = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for block in blocks:
        for offset in HALF_FLOATS.get(kind, []):
            block[offset : offset + 2] = np.frombuffer(random_half(rng).tobytes(), np.uint8)
    if kind == Type.F32:
        blocks = rng.normal(size=count).astype(np.float32).view(np.uint8).reshape(count, 4)
    if kind == Type.BF16:
        blocks[:, 1] &= 0xBF  # no infinities
    return blocks


def main():
    rng = np.random.default_rng(1)
    with open(sys.argv[1], "wb") as out:
        for kind in [Type.F32, Type.BF16, *HALF_FLOATS]:
            elements = GGML_QUANT_SIZES[kind][0]
            blocks = random_blocks(rng, kind, {1: 64, 32: 16, 256: 6}[elements])
            raw = blocks.tobytes()
            values = dequantize(np.frombuffer(raw, np.float32 if kind == Type.F32 else np.float16 if kind == Type.F16
                                              else np.uint8), kind).astype(np.float32).ravel()
            assert np.isfinite(values).all() and values.size == len(blocks) * elements
            out.write(struct.pack("<III", kind.value, len(raw), values.size) + raw + values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
