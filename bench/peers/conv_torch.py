"""The convolutions and the net of bench/conv.mjs in PyTorch, channels last. Reads a number of steps a line, answers with the seconds that they took."""

import os
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

what, threads, dtype = sys.argv[1], int(sys.argv[2]), getattr(torch, sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [3, 64, 64, 128, 128, 256, 256]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in widths[1:])
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = F.relu(norm(conv(x)), inplace=True)
            if i in (1, 3):
                x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


def net_step():
    batch = int(sys.argv[4])
    model = Net().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    pixels = torch.rand(batch, 3, 32, 32) - 0.5

    def step():
        images = pixels.clone().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), torch.randint(0, 10, (batch,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def layer_step():
    n, c, size, o, kernel, stride, padding, groups = map(int, sys.argv[4:12])
    last = dict(memory_format=torch.channels_last)
    x = torch.randn(n, c, size, size, dtype=dtype).contiguous(**last).requires_grad_()
    w = torch.randn(o, c // groups, kernel, kernel, dtype=dtype).contiguous(**last).requires_grad_()
    bias = torch.randn(o, dtype=dtype).requires_grad_()
    slope = torch.randn_like(F.conv2d(x, w, bias, stride, padding, 1, groups))

    def step():
        y = F.conv2d(x, w, bias, stride, padding, 1, groups)
        return torch.autograd.grad(y, (x, w, bias), slope)

    return step


clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
step = net_step() if what == "net" else layer_step()
print(f"ready torch {torch.__version__}", flush=True)
for line in sys.stdin:
    began = clock()
    for _ in range(int(line)):
        step()
    print(clock() - began, flush=True)
