"""Writes model folders in the format of the golden data, of architectures and sizes that are asked for: `model_fixtures.py OUT [name …]`.

Each folder has random weights, 4 AdamW steps in float64 and float32, and greedy continuations where the model writes tokens.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers as hf

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
BASE = dict(vocab_size=131, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, head_dim=10, max_position_embeddings=64, initializer_range=0.15)


def decoder(config, model, **more):
    return lambda: model(config(**{**BASE, **more}))


def llama(**rope):
    more = {k: rope.pop(k) for k in list(rope) if k in ("max_position_embeddings", "attention_bias", "mlp_bias")}
    return decoder(hf.LlamaConfig, hf.LlamaForCausalLM, rope_parameters={**ROPE, **rope}, **more)


BERT = dict(vocab_size=131, hidden_size=48, intermediate_size=72, num_hidden_layers=2, num_attention_heads=3,
            max_position_embeddings=60, initializer_range=0.15)
T5 = dict(vocab_size=131, d_model=40, d_ff=72, d_kv=9, num_heads=3, num_layers=2, num_decoder_layers=3,
          dropout_rate=0.0, decoder_start_token_id=0, initializer_factor=0.7)

MODELS = {
    "gpt2-odd": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=131, n_embd=51, n_head=3, n_layer=2, n_positions=60, n_inner=77, initializer_range=0.15)),
    "gpt2-gelu": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=97, n_embd=28, n_head=7, n_layer=3, n_positions=60, initializer_range=0.15, activation_function="gelu")),
    "llama-linear": llama(rope_type="linear", factor=2.5),
    "llama-dynamic": llama(rope_type="dynamic", factor=3.0, max_position_embeddings=24),
    "llama-yarn": llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "llama-longrope": llama(rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
                            short_factor=[1.0, 1.1, 1.2, 1.3, 1.5], long_factor=[1.0, 2.0, 3.0, 4.0, 6.0]),
    "llama-3": llama(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    "llama-bias": llama(attention_bias=True, mlp_bias=True),
    "mistral": decoder(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=7),
    "qwen2": decoder(hf.Qwen2Config, hf.Qwen2ForCausalLM, tie_word_embeddings=True),
    "qwen2-window": decoder(hf.Qwen2Config, hf.Qwen2ForCausalLM, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "qwen3": decoder(hf.Qwen3Config, hf.Qwen3ForCausalLM),
    "gemma2": decoder(hf.Gemma2Config, hf.Gemma2ForCausalLM, sliding_window=8, query_pre_attn_scalar=20),
    "gemma3": decoder(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, sliding_window=5, query_pre_attn_scalar=20, num_hidden_layers=7),
    "gpt2-class": lambda: hf.GPT2ForSequenceClassification(hf.GPT2Config(vocab_size=131, n_embd=36, n_head=3, n_layer=2, n_positions=60, initializer_range=0.15, num_labels=4, pad_token_id=0)),
    "llama-class": decoder(hf.LlamaConfig, hf.LlamaForSequenceClassification, num_labels=3, pad_token_id=2),
    "qwen3-multi": decoder(hf.Qwen3Config, hf.Qwen3ForSequenceClassification, num_labels=3, pad_token_id=2, problem_type="multi_label_classification"),
    "gemma3-class": decoder(hf.Gemma3TextConfig, hf.Gemma3TextForSequenceClassification, num_labels=3, pad_token_id=2, query_pre_attn_scalar=20),
    "bert-token": lambda: hf.BertForTokenClassification(hf.BertConfig(**BERT, num_labels=5)),
    "bert-multi": lambda: hf.BertForSequenceClassification(hf.BertConfig(**BERT, num_labels=4, problem_type="multi_label_classification")),
    "bert-regression": lambda: hf.BertForSequenceClassification(hf.BertConfig(**BERT, num_labels=1)),
    "roberta-mlm": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**BERT, pad_token_id=1, type_vocab_size=1)),
    "roberta-class": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**BERT, num_labels=3)),
    "roberta-token": lambda: hf.RobertaForTokenClassification(hf.RobertaConfig(**BERT, num_labels=6)),
    "t5-gated": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=20, patch_size=5, num_labels=4, initializer_range=0.15)),
    "resnet-basic": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic", num_labels=4)),
    "resnet-bottleneck": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2], layer_type="bottleneck", num_labels=3)),
    "resnet-gelu": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1], num_labels=3, hidden_act="gelu", downsample_in_bottleneck=True)),
    "t5-relu": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
}

TASKS = {"ForCausalLM": "causal-lm", "LMHeadModel": "causal-lm", "ForMaskedLM": "masked-lm", "ForConditionalGeneration": "seq2seq-lm",
         "ForImageClassification": "image-classification", "ForSequenceClassification": "sequence-classification", "ForTokenClassification": "token-classification"}


def no_dropout(model):
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
        for key in ("attention_dropout", "dropout"):
            if isinstance(getattr(m, key, None), float):
                setattr(m, key, 0.0)


def batch_of(task, config, rows, time, g):
    if task == "image-classification":
        size = getattr(config, "image_size", 33)
        pixels = torch.randn(rows, config.num_channels, size, size, generator=g)
        return {"pixel_values": pixels, "labels": torch.randint(0, config.num_labels, (rows,), generator=g)}
    vocab = config.vocab_size
    ids = torch.randint(3, vocab, (rows, time), generator=g)
    batch = {"input_ids": ids}
    if task in ("masked-lm", "sequence-classification", "token-classification", "seq2seq-lm"):
        mask = torch.ones(rows, time, dtype=torch.long)
        mask[0, time - 4:] = 0
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        batch["input_ids"] = torch.where(mask == 1, ids, pad)
        batch["attention_mask"] = mask
    if task == "causal-lm":
        labels = ids.clone()
        labels[0, :5] = -100
    elif task == "sequence-classification":
        n = config.num_labels
        if n == 1:
            labels = torch.randn(rows, generator=g).round(decimals=3) + 0.0005
        elif config.problem_type == "multi_label_classification":
            labels = (torch.rand(rows, n, generator=g) < 0.5).long()
        else:
            labels = torch.randint(0, n, (rows,), generator=g)
    else:
        width = time - 3 if task == "seq2seq-lm" else time
        top = config.num_labels if task == "token-classification" else vocab
        labels = torch.randint(0, top, (rows, width), generator=g)
        labels[torch.rand(rows, width, generator=g) < 0.3] = -100
    batch["labels"] = labels
    return batch


def train(model, batches, optimizer):
    opt = torch.optim.AdamW(model.parameters(), lr=optimizer["lr"], betas=optimizer["betas"], eps=optimizer["eps"], weight_decay=optimizer["weightDecay"])
    out = dict(loss=[], gradNorm=[])
    for i, batch in enumerate(batches):
        given = {k: v.to(model.dtype) if k == "pixel_values" else v for k, v in batch.items()}
        if given["labels"].is_floating_point() or model.config.__dict__.get("problem_type") == "multi_label_classification":
            given["labels"] = given["labels"].to(model.dtype)
        result = model(**given)
        if i == 0:
            flat = result.logits.detach().double().flatten()
            out.update(firstLogits=flat[:64].tolist(), logitsSum=flat.sum().item(), logitsAbsSum=flat.abs().sum().item())
        opt.zero_grad()
        result.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer["clipGlobalNorm"])
        if i == 0:
            out["clippedGradNormAtStep1"] = {k: p.grad.norm().item() for k, p in model.named_parameters()}
        opt.step()
        out["loss"].append(result.loss.item())
        out["gradNorm"].append(norm.item())
    out["finalNorm"] = {k: p.detach().norm().item() for k, p in model.named_parameters()}
    return out


def write(folder, name):
    torch.manual_seed(sum(map(ord, name)))
    g = torch.Generator().manual_seed(7)
    model = MODELS[name]().eval()
    # Biases and norms that are not at their first values, so that each counts.
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=g))
    no_dropout(model)
    model.save_pretrained(folder)
    head = next(t for t in TASKS if type(model).__name__.endswith(t))
    task = TASKS[head]
    optimizer = dict(name="adamw", lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weightDecay=0.05, decays="all parameters", clipGlobalNorm=1.0)
    batches = [batch_of(task, model.config, 3, 30, g) for _ in range(4)]
    expect = {}
    for dtype in (torch.float64, torch.float32):
        own = copy.deepcopy(model).to(dtype).train()
        no_dropout(own)
        expect[str(dtype)[6:]] = train(own, batches, optimizer)
    rows = [{k: v.tolist() for k, v in b.items()} for b in batches]
    (folder / "training.json").write_text(json.dumps(dict(task=task, optimizer=optimizer, batches=rows, expect=expect)))
    if task in ("causal-lm", "seq2seq-lm"):
        own = copy.deepcopy(model).to(torch.float64).eval()
        prompt = torch.randint(3, model.config.vocab_size, (2, 5), generator=g)
        greedy = own.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, use_cache=False, eos_token_id=None, pad_token_id=0)
        cases = [dict(prompt=prompt.tolist(), greedy=greedy.tolist())]
        (folder / "generation.json").write_text(json.dumps(dict(task=task, maxNewTokens=12, cases=cases)))


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        write(root / name, name)
        print(name, flush=True)
