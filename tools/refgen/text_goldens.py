"""Small vocabularies and golden token ids for test/unit/text and test/integration.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 transformers==5.23.0 gguf==0.19.0
    python tools/refgen/text_goldens.py test/data/text SmolLM2-135M-Instruct.Q4_1.gguf

The vocabularies are trained here, on the text of tokenizer_texts.py, by the libraries that the model families
used, with each family's own normaliser and pre-tokenizer. The ids come from the same libraries. Written are

    strings.json        what is encoded
    invalid_utf8.json   [bytes in hexadecimal, the same with U+FFFD where they were no UTF-8]
    <vocabulary>.json   {"spec": a TokenizerSpec, "ids": one list for each string, "special_ids": [index of a string,
                        its ids with control tokens recognised] where these differ}
    smollm2.json        the same for SmolLM2's own vocabulary, which is not stored, and conversations with it
    chat.json           conversations written by the templates below, and their ids

The templates below were written for this file, after how the families' own work; only SmolLM2's is the published one,
from its GGUF file.

transformers reads SmolLM2's vocabulary from the GGUF file, but not the step of its pre-tokenizer that isolates digits;
here it is put back (compare `SMOLLM` with the published tokenizer.json).
"""

import argparse
import io
import json
import pathlib

import gguf
import sentencepiece
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import tokenizer_texts

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # GGUF's token types

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST


def split_then_bytes(regex):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


GPT2 = pre_tokenizers.ByteLevel(False)
SMOLLM = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])

CHATML_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a small test model<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' }}"
    "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}"
    "{{ '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{{ message['content'].strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
    "{{ message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\\n' }}"
    "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
    "{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

CONVERSATIONS = [
    [("user", "Hi")],
    [("user", "  What is 2 + 2?\n\n")],
    [("system", "Answer in one word."), ("user", "Where is the river?")],
    [("user", "Hello, world!"), ("assistant", "Hello! How are you?"), ("user", "I'm fine.\n\nAnd you?")],
    [
        ("system", "Be kind."),
        ("user", "今日は"),
        ("assistant", " はい。\n"),
        ("user", "ok"),
        ("assistant", "1 2 3"),
        ("user", "4"),
    ],
    [("user", "\u3000white\u00a0\x1f"), ("assistant", ""), ("user", "x")],
]


def train_byte_bpe(pre_tokenizer, control, vocab_size, all_bytes=True, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if all_bytes else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts.training_text(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def spec_of(tokenizer, kind, **fields):
    """The TokenizerSpec of a `tokenizers` tokenizer, in the JSON form that the tests read."""
    vocab = tokenizer.get_vocab()
    pieces = sorted(vocab, key=vocab.get)
    kinds = [NORMAL] * len(pieces)
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        kinds[token_id] = CONTROL if token.special else USER_DEFINED
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {"kind": kind, "pieces": pieces, "kinds": kinds, "merges": merges, **fields}


def golden_ids(tokenizer, strings):
    tokenizer.encode_special_tokens = True
    plain = [tokenizer.encode(s).ids for s in strings]
    tokenizer.encode_special_tokens = False
    special = [tokenizer.encode(s).ids for s in strings]
    differing = [[i, ids] for i, ids in enumerate(special) if ids != plain[i]]
    return {"ids": plain, "special_ids": differing}


def gpt2():
    tokenizer = train_byte_bpe(GPT2, ["<|endoftext|>"], 900)
    return tokenizer, spec_of(tokenizer, "byte_bpe", pre_tokenizer="gpt2", bos=0, eos=0, end_of_generation=[0])


def smollm():
    """Like SmolLM2, some bytes have no piece."""
    tokenizer = train_byte_bpe(SMOLLM, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], 900, all_bytes=False)
    fields = {"pre_tokenizer": "smollm", "bos": 1, "eos": 2, "unknown": 0, "end_of_generation": [2]}
    return tokenizer, spec_of(tokenizer, "byte_bpe", chat_template=CHATML_TEMPLATE, **fields)


def llama3():
    """With pieces that no merge leads to, which only `ignore_merges` finds."""
    control = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    trained = train_byte_bpe(split_then_bytes(LLAMA3), [], 900)
    state = json.loads(trained.to_str())
    model = state["model"]
    for word in (" bridge", " walking", "日本", " été", "()\n", "\n\n\n\n\n", "HTTP"):
        piece = pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(word)[0][0]
        model["vocab"].setdefault(piece, len(model["vocab"]))
    model["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    ids = [tokenizer.token_to_id(t) for t in control]
    fields = {"pre_tokenizer": "llama-bpe", "ignore_merges": True, "bos": ids[0], "eos": ids[1], "add_bos": True}
    fields["end_of_generation"] = [ids[1], ids[4]]
    return tokenizer, spec_of(tokenizer, "byte_bpe", chat_template=LLAMA3_TEMPLATE, **fields)


def qwen2():
    tokenizer = train_byte_bpe(split_then_bytes(QWEN2), [], 900, normalizer=normalizers.NFC())
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<tool_call>", "</tool_call>", "é<s>")])
    ids = [tokenizer.token_to_id(t) for t in control]
    fields = {"pre_tokenizer": "qwen2", "normalize_nfc": True, "eos": ids[2], "end_of_generation": [ids[0], ids[2]]}
    return tokenizer, spec_of(tokenizer, "byte_bpe", **fields)


def train_sentencepiece(vocab_size, **options):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in tokenizer_texts.training_text() if "\x00" not in line]),
        model_writer=written,
        model_type="bpe",
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    names = {
        kinds.NORMAL: NORMAL,
        kinds.UNKNOWN: UNKNOWN,
        kinds.CONTROL: CONTROL,
        kinds.USER_DEFINED: USER_DEFINED,
        kinds.BYTE: BYTE,
        kinds.UNUSED: UNUSED,
    }
    spec = {
        "kind": "sentencepiece",
        "pieces": [p.piece for p in proto.pieces],
        "kinds": [names[p.type] for p in proto.pieces],
        "scores": [p.score for p in proto.pieces],
        "bos": 1,
        "eos": 2,
        "unknown": 0,
        "end_of_generation": [2],
        "add_bos": True,
    }
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue()), spec


def llama2_scores():
    processor, spec = train_sentencepiece(1000, byte_fallback=True, character_coverage=0.98)
    return processor, {**spec, "add_space_prefix": True, "chat_template": LLAMA2_TEMPLATE}


def unknown_scores():
    """Without byte pieces, so that characters can be unknown, and with user-defined pieces."""
    user_defined = ["<td>", "</td>", "\n\n", "==", "日本"]
    processor, spec = train_sentencepiece(
        700, character_coverage=0.98, add_dummy_prefix=False, user_defined_symbols=user_defined
    )
    return processor, spec


def merges_of(spec):
    """Every way to put a piece together from two others, in the order of the pieces they make."""
    ids = {piece: i for i, piece in enumerate(spec["pieces"])}
    merges = []
    for piece, kind in zip(spec["pieces"], spec["kinds"]):
        if kind in (NORMAL, USER_DEFINED):
            splits = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
            merges += sorted(splits, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def merges_tokenizer(spec, normalizer):
    """A SentencePiece vocabulary as Hugging Face's tokenizer.json has it: merges by rank instead of scores."""
    merges = merges_of(spec)
    model = models.BPE(
        {piece: i for i, piece in enumerate(spec["pieces"])},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    for piece, kind in zip(spec["pieces"], spec["kinds"]):
        if kind in (CONTROL, UNKNOWN):
            tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True)])
        elif kind == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(piece, normalized=False)])
    spec = {key: value for key, value in spec.items() if key != "scores"}
    return tokenizer, {**spec, "merges": merges}


def llama2_merges():
    _, spec = llama2_scores()
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return merges_tokenizer(spec, normalizer)


def gemma_merges():
    control = ["<start_of_turn>", "<end_of_turn>"]
    user_defined = ["\n\n", "\n\n\n", "▁▁", "▁▁▁", "<td>", "</td>"]
    _, spec = train_sentencepiece(
        1000,
        byte_fallback=True,
        character_coverage=0.98,
        add_dummy_prefix=False,
        control_symbols=control,
        user_defined_symbols=user_defined,
    )
    tokenizer, spec = merges_tokenizer(spec, normalizers.Replace(" ", "▁"))
    ends = [spec["eos"], spec["pieces"].index("<end_of_turn>")]
    return tokenizer, {**spec, "chat_template": GEMMA_TEMPLATE, "end_of_generation": ends}


def conversation_cases(tokenizer, spec, template, format_name):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    token = lambda name: spec["pieces"][spec[name]] if spec.get(name, -1) >= 0 else ""
    cases = []
    for conversation in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in conversation]
        written = environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token=token("bos"), eos_token=token("eos")
        )
        tokenizer.encode_special_tokens = False
        cases.append({"format": format_name, "messages": conversation, "ids": tokenizer.encode(written).ids})
    return cases


def smollm2(path, strings):
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields["tokenizer." + key].contents()
    pieces, kinds = get("ggml.tokens"), get("ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in get("ggml.merges")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = SMOLLM
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False) for piece, kind in zip(pieces, kinds) if kind == CONTROL]
    )
    spec = {"pieces": pieces, "bos": get("ggml.bos_token_id"), "eos": get("ggml.eos_token_id")}
    chat = conversation_cases(tokenizer, spec, get("chat_template"), "chatml")
    return {**golden_ids(tokenizer, strings), "chat": chat}


def write(path, value):
    """JSON with one element of every outer list on a line of its own."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text.replace("],[", "],\n[") + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("smollm2", help="SmolLM2's GGUF file")
    arguments = parser.parse_args()
    strings = tokenizer_texts.golden_strings()
    (arguments.folder / "strings.json").write_text(
        json.dumps(strings, indent=0, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write(
        arguments.folder / "invalid_utf8.json",
        [[case.hex(), case.decode("utf-8", "replace")] for case in tokenizer_texts.invalid_utf8()],
    )
    chat = []
    templates = {
        "smollm": [(CHATML_TEMPLATE, "chatml")],
        "llama3": [(LLAMA3_TEMPLATE, "llama3")],
        "llama2_merges": [(LLAMA2_TEMPLATE, "llama2"), (MISTRAL_TEMPLATE, "mistral")],
        "gemma_merges": [(GEMMA_TEMPLATE, "gemma")],
    }
    for make in (gpt2, smollm, llama3, qwen2, llama2_scores, unknown_scores, llama2_merges, gemma_merges):
        tokenizer, spec = make()
        name = make.__name__
        if isinstance(tokenizer, Tokenizer):
            golden = golden_ids(tokenizer, strings)
        else:
            golden = {"ids": [tokenizer.encode(s) for s in strings], "special_ids": []}
        write(arguments.folder / f"{name}.json", {"spec": spec, **golden})
        for template, format_name in templates.get(name, []):
            chat += [
                {"vocabulary": name, **case} for case in conversation_cases(tokenizer, spec, template, format_name)
            ]
    write(arguments.folder / "chat.json", chat)
    write(arguments.folder / "smollm2.json", smollm2(arguments.smollm2, strings))


if __name__ == "__main__":
    main()
