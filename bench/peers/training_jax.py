"""A work of bench/works.mjs in JAX, the whole step under one jit with its state donated; optax's AdamW."""

import os
import sys

if len(sys.argv) > 3 and int(sys.argv[3]) == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import optax
from safetensors.numpy import load_file

from works import BATCHES, batch_of, context, dtype, folder, kind, resident, serve, work

if kind not in ("gpt", "mlp", "cnn"):
    sys.exit("no such model is written for JAX here")
jax.jit(lambda x: x @ x)(jnp.ones((64, 64))).block_until_ready()
before = resident("VmRSS")
low = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32


def linear(p, name, x):
    # GPT-2's folder keeps [inputs, outputs], the others [outputs, inputs].
    w = p[f"{name}.weight"].astype(low)
    return x.astype(low) @ (w if kind == "gpt" else w.T) + p[f"{name}.bias"].astype(low)


def norm(p, name, x):
    y = x.astype(jnp.float32)
    y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)
    return (y * p[f"{name}.weight"] + p[f"{name}.bias"]).astype(x.dtype)


def gpt(p, ids):
    width, heads = work["width"], work["heads"]
    x = (p["wte.weight"][ids] + p["wpe.weight"][:context]).astype(low)
    for i in range(work["layers"]):
        qkv = linear(p, f"h.{i}.attn.c_attn", norm(p, f"h.{i}.ln_1", x))
        q, k, v = (y.reshape(*y.shape[:2], heads, width // heads) for y in jnp.split(qkv, 3, -1))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(p, f"h.{i}.attn.c_proj", y.reshape(x.shape))
        h = jax.nn.gelu(linear(p, f"h.{i}.mlp.c_fc", norm(p, f"h.{i}.ln_2", x)), approximate=True)
        x = x + linear(p, f"h.{i}.mlp.c_proj", h)
    return norm(p, "ln_f", x) @ p["wte.weight"].astype(low).T


def cnn(p, x):
    x = x.astype(low)
    for i in range(6):
        w = p[f"net.convs.{i}.weight"].astype(low)
        y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")).astype(jnp.float32)
        mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
        y = (y - mean) * jax.lax.rsqrt(var + 1e-5) * p[f"net.norms.{i}.weight"] + p[f"net.norms.{i}.bias"]
        x = jax.nn.relu(y).astype(low)
        if i in (1, 3):
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return linear(p, "net.head", x.mean((1, 2)))


def mlp(p, x):
    for i in range(len(work["widths"]) - 1):
        x = linear(p, f"net.layers.{i}", jax.nn.relu(x) if i else x)
    return x


def make():
    file = {k.removeprefix("transformer."): jnp.asarray(v) for k, v in load_file(f"{folder}/model.safetensors").items()}
    params = {k: v for k, v in file.items() if v.dtype == jnp.float32 and k != "lm_head.weight"}
    forward = dict(gpt=gpt, cnn=cnn, mlp=mlp)[kind]

    def loss_of(p, x, y):
        logits = forward(p, x).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    decay = jax.tree.map(lambda p: p.ndim > 1, params)
    steps = [optax.adamw(work["lr"], weight_decay=work.get("weightDecay", 0), mask=decay)]
    optimizer = optax.chain(*([optax.clip_by_global_norm(work["clip"])] if "clip" in work else []), *steps)
    state = [params, optimizer.init(params)]

    def update(p, s, x, y):
        loss, grads = jax.value_and_grad(loss_of)(p, x, y)
        moves, s = optimizer.update(grads, s, p)
        return optax.apply_updates(p, moves), s, loss

    update = jax.jit(update, donate_argnums=(0, 1))
    batches = [tuple(map(jnp.asarray, batch_of(n))) for n in range(BATCHES)]
    if kind == "cnn":
        batches = [(x.transpose(0, 2, 3, 1), y) for x, y in batches]
    done = 0

    def step():
        nonlocal done
        x, y = batches[done % BATCHES]
        done += 1
        state[0], state[1], loss = update(*state, x, y)
        return loss

    return step


serve(f"jax {jax.__version__}", before, make)
