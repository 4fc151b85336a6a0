"""A model of bench/memory.mjs in PyTorch: prints a line of JSON with the peak of the process, the time of a step and the losses."""

import json
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from common import resident, tokens

o = json.loads(sys.argv[1])
layers, width, heads, vocab, batch, context = (o[k] for k in ("layers", "width", "heads", "vocab", "batch", "context"))
torch.set_num_threads(o["threads"])
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(c, dim=2)
        q, k, v = (y.view(b, t, heads, c // heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(Block() for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() > 1:
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if "proj" in name else 1))

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = checkpoint(block, x, use_reentrant=False) if o.get("checkpoint") else block(x)
        logits = self.ln_f(x) @ self.wte.weight.T
        return F.cross_entropy(logits.view(-1, vocab), targets.view(-1))


def transformer():
    """The GPT-2 that people fine-tune: dropout 0.1, its activation and loss written out."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": context, "vocab_size": vocab}
    model = GPT2LMHeadModel(GPT2Config(**sizes))
    if o.get("checkpoint"):
        model.gradient_checkpointing_enable()
    return model.train()


torch.ones(64, 64) @ torch.ones(64, 64)
if o.get("transformers"):
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401
before = resident("VmRSS")
model = transformer() if o.get("transformers") else GPT()
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=3e-4, fused=True)
losses, seconds = [], []
for step in range(o["steps"]):
    ids, targets = (torch.tensor(t).view(batch, context) for t in tokens(step, batch, context))
    began = time.perf_counter()
    if o.get("transformers"):
        # Their labels are shifted by the model: a place before the first is not counted.
        loss = model(ids, labels=torch.cat([ids[:, :1], targets[:, :-1]], 1)).loss
    else:
        loss = model(ids, targets)
    loss.backward()
    if o["clip"]:
        torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(float(loss.detach()))
    seconds.append(time.perf_counter() - began)
print(json.dumps({"peak": resident("VmHWM") - before, "seconds": seconds, "losses": losses}))
