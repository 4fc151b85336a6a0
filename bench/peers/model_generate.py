"""What transformers writes: `model_generate.py DIR`, a folder of model folders; prints a line of JSON for each that writes tokens.

Greedy with a cache (T5 without: with fewer layers that encode than decode, theirs fails), float64: a batch of prompts of different lengths, and the same with a penalty for repetition.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as hf

TOKENS = 30

for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if (p / "generation.json").exists()):
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(hf, name).from_pretrained(folder, dtype=torch.float64).eval()
    seq2seq = model.config.is_encoder_decoder
    g = torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, model.config.vocab_size, (n,), generator=g).tolist() for n in (9, 4, 6)]
    width = max(map(len, prompts))
    filled = [(width - len(p)) * [0] for p in prompts]
    # An encoder reads from the left, a decoder goes on at the right.
    ids = torch.tensor([p + f if seq2seq else f + p for p, f in zip(prompts, filled)])
    mask = torch.tensor([[1] * len(p) + f if seq2seq else f + [1] * len(p) for p, f in zip(prompts, filled)])
    given = dict(attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, use_cache=not seq2seq, eos_token_id=None, pad_token_id=0)
    out = {}
    for key, more in (("plain", {}), ("penalized", {"repetition_penalty": 1.3})):
        if (more and not seq2seq) or model.config.model_type == "gemma2":
            # Each prompt by itself: filling would count as said, and Gemma 2 gives NaN for places that see nothing.
            rows = [model.generate(torch.tensor([p]), **{**given, "attention_mask": torch.ones(1, len(p), dtype=torch.long)}, **more)[0, len(p):] for p in prompts]
        else:
            rows = model.generate(ids, **given, **more)[:, 1 if seq2seq else width:]
        out[key] = [r.tolist() for r in rows]
    print(json.dumps(dict(name=folder.name, prompts=prompts, **out)), flush=True)
