"""The optimizer step of bench/adamw.mjs in PyTorch. Reads a number of steps a line, answers with the seconds that they took."""

import sys
import time

import torch

count, size, threads = map(int, sys.argv[1:4])
name, how = sys.argv[4:6]
torch.set_num_threads(threads)
params = [torch.rand(size).sub_(0.5).requires_grad_() for _ in range(count)]
for p in params:
    p.grad = torch.rand(size).sub_(0.5)

if name == "adamw":
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=how == "fused", foreach=how == "foreach")
    step = optimizer.step
else:
    means = [torch.zeros(size) for _ in params]

    @torch.no_grad()
    def lion():
        for p, m in zip(params, means):
            p.sub_(torch.sign(m * 0.9 + p.grad * 0.1), alpha=1e-4)
            m.mul_(0.99).add_(p.grad, alpha=0.01)

    step = torch.compile(lion) if how == "compiled" else lion

print(f"ready torch {torch.__version__}", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        step()
    print(time.perf_counter() - began, flush=True)
