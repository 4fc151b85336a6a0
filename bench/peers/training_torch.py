"""A work of bench/works.mjs in PyTorch, eager or compiled, each at its best settings: fused AdamW, channels last, scaled_dot_product_attention."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

from works import BATCHES, batch_of, context, dtype, folder, kind, resident, serve, threads, work

compiled = sys.argv[5] == "compiled"
torch.set_num_threads(threads)
torch.ones(64, 64) @ torch.ones(64, 64)
before = resident("VmRSS")


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict(dict(c_attn=nn.Linear(width, 3 * width), c_proj=nn.Linear(width, width)))
        self.mlp = nn.ModuleDict(dict(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width)))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.attn.c_attn(self.ln_1(x)).split(c, dim=2)
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        width = work["width"]
        self.wte, self.wpe = nn.Embedding(work["vocab"], width), nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(width, work["heads"]) for _ in range(work["layers"]))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe.weight
        for block in self.h:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.weight.T
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def load(self):
        # A GPT-2 folder keeps the weights of its layers as [inputs, outputs].
        file = {k.removeprefix("transformer."): v for k, v in load_file(f"{folder}/model.safetensors").items()}
        turned = {k: v.T if k.startswith("h.") and v.dim() == 2 else v for k, v in file.items() if k in self.state_dict()}
        self.load_state_dict(turned)


class Net(nn.Module):
    """The convolutional net, or the perceptron, with the names of the file."""

    def __init__(self):
        super().__init__()
        widths = work["widths"]
        if kind == "mlp":
            self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:]))
            return
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in widths[1:])
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x, labels):
        if kind == "mlp":
            for i, layer in enumerate(self.layers):
                x = layer(F.relu(x) if i else x)
            return F.cross_entropy(x.float(), labels)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = F.relu(norm(conv(x)), inplace=True)
            if i in (1, 3):
                x = F.max_pool2d(x, 2)
        return F.cross_entropy(self.head(x.mean((2, 3))).float(), labels)

    def load(self):
        file = {k.removeprefix("net."): v for k, v in load_file(f"{folder}/model.safetensors").items()}
        self.load_state_dict(file, strict=False)


def transformer():
    from transformers import BertForSequenceClassification, LlamaForCausalLM

    if kind == "bert":
        options = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        model = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **options)
        return model, lambda call, x, y: call(input_ids=x, labels=y).loss
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # Its own loss would shift targets that are shifted already.
    return model, lambda call, x, y: F.cross_entropy(call(input_ids=x, use_cache=False).logits.flatten(0, 1).float(), y.flatten())


def make():
    if kind in ("bert", "llama"):
        model, loss_of = transformer()
    else:
        model, loss_of = (GPT() if kind == "gpt" else Net()), lambda call, x, y: call(x, y)
        model.load()
    model.train()
    last = dict(memory_format=torch.channels_last) if kind == "cnn" else {}
    model.to(**last)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [dict(params=decayed, weight_decay=work.get("weightDecay", 0)), dict(params=rest, weight_decay=0)]
    optimizer = torch.optim.AdamW(groups, lr=work["lr"], fused=True)
    call = torch.compile(model) if compiled else model
    batches = [tuple(torch.from_numpy(a) for a in batch_of(n)) for n in range(BATCHES)]
    batches = [(x.long() if context else x.contiguous(**last), y.long()) for x, y in batches]
    done = 0

    def step():
        nonlocal done
        x, y = batches[done % BATCHES]
        done += 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(call, x, y)
        loss.backward()
        if "clip" in work:
            torch.nn.utils.clip_grad_norm_(model.parameters(), work["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


serve(f"torch {torch.__version__}", before, make)
