"""Compares models that were written back with what they were read from: `model_roundtrip.py FROM TO`, folders of model folders of the same names.

Prints the largest difference of logits for each; they must be equal.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as hf

from_dir, to_dir = map(Path, sys.argv[1:3])
wrong = 0
for folder in sorted(p for p in from_dir.iterdir() if (p / "config.json").exists()):
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    a, b = (getattr(hf, name).from_pretrained(d, dtype=torch.float32).eval() for d in (folder, to_dir / folder.name))
    if hasattr(a.config, "vocab_size"):
        ids = torch.arange(3, 3 + 24).reshape(2, 12) * 5 % a.config.vocab_size
        given = {"input_ids": ids, **({"decoder_input_ids": ids[:, :7]} if a.config.is_encoder_decoder else {})}
    else:
        size = getattr(a.config, "image_size", 40)
        given = {"pixel_values": torch.sin(torch.arange(2.0 * a.config.num_channels * size * size)).reshape(2, -1, size, size)}
    with torch.no_grad():
        difference = (a(**given).logits - b(**given).logits).abs().max().item()
    wrong += difference != 0
    print(f"{folder.name} {name} {difference}", flush=True)
sys.exit(wrong != 0)
