"""A program of bench/finetune.mjs by transformers and peft: prints a line of JSON with the time of each step, the peak of the process and the losses."""

import json
import sys
import time

import torch
import transformers as hf

from common import resident, tokens

o = json.loads(sys.argv[1])
kind = o["kind"]
torch.set_num_threads(o["threads"])
torch.manual_seed(0)


def build():
    layers, width, heads, vocab = (o[k] for k in ("layers", "width", "heads", "vocab"))
    if kind == "llama":
        config = hf.LlamaConfig(vocab_size=vocab, hidden_size=width, intermediate_size=o["hidden"], num_hidden_layers=layers,
                                num_attention_heads=heads, num_key_value_heads=o["kvHeads"], max_position_embeddings=o["context"])
        return hf.LlamaForCausalLM(config)
    if kind == "bert":
        config = hf.BertConfig(vocab_size=vocab, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                               intermediate_size=4 * width, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2)
        return hf.BertForSequenceClassification(config)
    config = hf.GPT2Config(vocab_size=vocab, n_embd=width, n_layer=layers, n_head=heads, n_positions=o["context"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return hf.GPT2LMHeadModel(config)


torch.ones(64, 64) @ torch.ones(64, 64)
modules = {"llama": "llama", "load": "llama", "bert": "bert"}.get(kind, "gpt2")
__import__(f"transformers.models.{modules}.modeling_{modules}")
if o.get("how") == "lora":
    import peft
before = resident("VmRSS")

if kind == "load":
    began = time.perf_counter()
    model = hf.AutoModelForCausalLM.from_pretrained(o["folder"], dtype=torch.float32)
    # Pages of a file that is mapped are read when somebody looks at them.
    total = sum(float(p.detach().view(-1)[:: 1024].sum()) for p in model.parameters())
    print(json.dumps({"peak": resident("VmHWM") - before, "seconds": [time.perf_counter() - began]}))
    sys.exit()

model = build().train()
if o["how"] == "lora":
    task = "SEQ_CLS" if kind == "bert" else "CAUSAL_LM"
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=task))
trained = [p for p in model.parameters() if p.requires_grad]
groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.1}, {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=3e-4, fused=True)
run = torch.compile(model) if o.get("compiled") else model
losses, seconds = [], []
for step in range(o["steps"]):
    ids, targets = (torch.tensor(t).view(o["batch"], o["context"]) for t in tokens(step, o["batch"], o["context"]))
    # Labels of tokens are shifted by the model: a place before the first is not counted.
    labels = targets[:, 0] % 2 if kind == "bert" else torch.cat([ids[:, :1], targets[:, :-1]], 1)
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=o["dtype"] == "bfloat16"):
        loss = run(input_ids=ids, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(float(loss.detach()))
    seconds.append(time.perf_counter() - began)
warm = min(2, o["steps"] - 1)
print(json.dumps({"peak": resident("VmHWM") - before, "seconds": seconds[warm:], "losses": losses}))
