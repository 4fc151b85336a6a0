"""One optimizer's step by a peer. Reads a number of steps a line, answers with the seconds that they took.

Arguments: shapes, threads, and what runs: {"torch": class, "how": fused | foreach | compiled, ...} of PyTorch, {"module", "class"} of another
package over PyTorch, or {"optax": expression}; "options" go to the class.
"""

import importlib
import json
import sys
import time

shapes, threads, what = json.loads(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
options = what.get("options", {})


def with_torch():
    import torch

    torch.set_num_threads(threads)
    params = [torch.rand(shape).sub_(0.5).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = torch.rand(p.shape).sub_(0.5)
    how = what.get("how")
    if "torch" in what:
        more = {how: True} if how in ("fused", "foreach") else {}
        if how == "compiled":
            more = {"foreach": True}
        optimizer = getattr(torch.optim, what["torch"])(params, **{"lr": 1e-4, **options}, **more)
    else:
        made = getattr(importlib.import_module(what["module"]), what["class"])
        optimizer = made(params, **{"lr": 1e-4, **options})
    if hasattr(optimizer, "train") and callable(optimizer.train):
        optimizer.train()
    step = torch.compile(optimizer.step) if how == "compiled" else optimizer.step
    return step, lambda: None, torch.__version__


def with_optax():
    import os

    os.environ.setdefault("XLA_FLAGS", f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}")
    import jax
    import jax.numpy as jnp
    import optax
    import optax.contrib

    optimizer = eval(what["optax"], {"optax": optax, "contrib": optax.contrib})
    make = lambda seed: [jax.random.uniform(jax.random.key(seed + i), tuple(s)) - 0.5 for i, s in enumerate(shapes)]
    held = {"params": make(0), "grads": make(1000)}
    held["state"] = optimizer.init(held["params"])

    def move(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(move, donate_argnums=(0, 1))

    def step():
        held["params"], held["state"] = run(held["params"], held["state"], held["grads"])

    return step, lambda: jax.block_until_ready(held["params"]), f"{optax.__version__}, jax {jax.__version__}"


step, wait, version = with_optax() if "optax" in what else with_torch()
print(f"ready {version}", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        step()
    wait()
    print(time.perf_counter() - began, flush=True)
