"""Seeds for the fuzz targets gguf and safetensors, written by the formats' own packages.

    pip install gguf==0.19.0 safetensors numpy
    python tools/refgen/model_corpus.py test/fuzz/corpus

Files of at most 600 bytes are also cut and flipped by the replay, so the smallest complete model comes first.
"""

import json
import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.numpy import save_file

LETTERS = ["<|endoftext|>", "<|im_end|>", "a", "b", "ab"]


def write_gguf(path, architecture="llama", extra=lambda writer: None, tensors=()):
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(8)
    writer.add_embedding_length(2)
    writer.add_feed_forward_length(2)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    extra(writer)
    writer.add_tensor("token_embd.weight", np.ones((5, 2), np.float32))
    for name, array, kind in tensors:
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def byte_bpe(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(LETTERS)
    writer.add_token_types([3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)


def sentence_piece(writer):
    writer.add_sliding_window(4)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "\u2581", "a"])
    writer.add_token_scores([0.0, 0.0, 0.0, -1.0, -2.0])
    writer.add_token_types([2, 3, 3, 1, 1])
    writer.add_add_space_prefix(False)


def slice_keys(writer):
    writer.add_array("isthmus.slice.layers", [0, 1])
    writer.add_bool("isthmus.slice.embedding", True)
    writer.add_bool("isthmus.slice.head", False)


def write_ggufs(folder):
    write_gguf(folder / "smallest.gguf")
    write_gguf(folder / "byte_bpe.gguf", extra=byte_bpe)
    write_gguf(folder / "gemma3.gguf", "gemma3", sentence_piece)
    write_gguf(folder / "slice.gguf", extra=slice_keys)
    write_gguf(folder / "quantised.gguf", tensors=[
        ("blk.0.ffn_up.weight", np.zeros((2, 34), np.uint8), GGMLQuantizationType.Q8_0),
        ("rope_freqs.weight", np.ones(1, np.float32), None)])


def write_hf(folder):
    save_file({"x": np.ones((2, 3), np.float32), "y": np.ones(4, np.float16)}, folder / "two.safetensors",
              {"format": "pt"})
    config = {"model_type": "mistral", "num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 4,
              "vocab_size": 5, "max_position_embeddings": 8, "num_attention_heads": 2, "rms_norm_eps": 1e-5,
              "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    tokenizer = {"added_tokens": [{"id": 0, "content": "<s>", "special": True}],
                 "pre_tokenizer": {"type": "ByteLevel"}, "vocab_size": 5, "eos_token_id": [0], "bos_token": {"content": "<s>"},
                 "model": {"vocab": {"a": 1, "b": 2, "ab": 3}, "merges": ["a b", ["a", "b"]]}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def main():
    corpus = pathlib.Path(sys.argv[1])
    for name, write in {"gguf": write_ggufs, "safetensors": write_hf}.items():
        (corpus / name).mkdir(parents=True, exist_ok=True)
        write(corpus / name)


if __name__ == "__main__":
    main()
