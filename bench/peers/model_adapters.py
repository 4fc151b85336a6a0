"""Compares additions that were written for peft with the model that has them in its weights: `model_adapters.py FROM ADAPTERS MERGED`, folders of the same names.

Prints the largest difference of logits for each, beside the largest logit and what the additions change; ends with the number of those that differ.
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers as hf

from_dir, adapters, merged = map(Path, sys.argv[1:4])
wrong = 0
for folder in sorted(p for p in adapters.iterdir()):
    name = json.loads((from_dir / folder.name / "config.json").read_text())["architectures"][0]
    load = lambda d: getattr(hf, name).from_pretrained(d, dtype=torch.float64).eval()
    base, own = load(from_dir / folder.name), load(merged / folder.name)
    if hasattr(base.config, "vocab_size"):
        ids = torch.arange(3, 3 + 24).reshape(2, 12) * 5 % base.config.vocab_size
        given = {"input_ids": ids, **({"decoder_input_ids": ids[:, :7]} if base.config.is_encoder_decoder else {})}
    else:
        size = getattr(base.config, "image_size", 40)
        pixels = torch.sin(torch.arange(2.0 * base.config.num_channels * size * size))
        given = {"pixel_values": pixels.reshape(2, -1, size, size).double()}
    with torch.no_grad():
        before = base(**given).logits
        both = peft.PeftModel.from_pretrained(base, folder).eval()(**given).logits
        top = own(**given).logits
    difference, changed = ((both - top).abs().max() / top.abs().max()).item(), (before - top).abs().max().item()
    wrong += not (difference < 1e-5 and changed > 1e-3)
    print(f"{folder.name} {name} {difference:.1e} of {top.abs().max().item():.1f}, changed {changed:.2f}", flush=True)
sys.exit(wrong)
