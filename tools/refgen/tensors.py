"""Golden weights for test/unit/model: a few rows of SmolLM2's tensors as the `gguf` package reads them.

    pip install gguf==0.19.0 numpy
    python tools/refgen/tensors.py SmolLM2-135M-Instruct.Q4_1.gguf test/data/smollm2_rows.bin

The file is a sequence of records, little-endian: length of the name (u32), the name, the row (u32), the number of
values (u32), the values (f32).
"""

import struct
import sys

from gguf import GGUFReader
from gguf.quants import dequantize

ROWS = {"token_embd.weight": 1000, "blk.0.attn_norm.weight": 0, "blk.3.attn_q.weight": 17, "blk.29.attn_v.weight": 191,
        "blk.29.ffn_down.weight": 575, "output_norm.weight": 0}


def main():
    tensors = {tensor.name: tensor for tensor in GGUFReader(sys.argv[1]).tensors}
    with open(sys.argv[2], "wb") as out:
        for name, row in ROWS.items():
            tensor = tensors[name]
            values = dequantize(tensor.data, tensor.tensor_type).reshape(-1, tensor.shape[0])[row]
            text = name.encode()
            out.write(struct.pack("<I", len(text)) + text + struct.pack("<II", row, values.size))
            out.write(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
