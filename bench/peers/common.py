"""What peers of several benches share."""

import re


def resident(key):
    """Bytes of this process by a key of its status."""
    return 1024 * int(re.search(rf"^{key}:\s+(\d+)", open("/proc/self/status").read(), re.M).group(1))


def tokens(step, batch, context):
    """Tokens of a step as bench/tokens.mjs has them: inputs and targets, each a list of batch * context."""
    state = 12345 + step

    def draw():
        nonlocal state
        state = (1103515245 * state + 12345) % 2147483648
        return (state >> 16) % 997

    inputs, targets = [], []
    for _ in range(batch):
        token = draw()
        for _ in range(context):
            inputs.append(token)
            token = draw() if draw() % 4 == 0 else (token * 31 + 7) % 997
            targets.append(token)
    return inputs, targets
