"""Adam on a vmapped ensemble in PyTorch: run by against_pytorch.py, in PyTorch's own environment.

Reads initial parameters and data (npz), writes elapsed seconds and each member's objective (JSON).
"""

import argparse
import json
import math
import time

import numpy as np
import torch
from torch.func import grad_and_value, vmap


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("result")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--steps", type=int, nargs="+", required=True)
    parser.add_argument("--checks", type=int, default=20, help="looks at the objective in a run")
    arguments = parser.parse_args()

    problem = np.load(arguments.problem)
    x, y = (torch.from_numpy(problem[name]) for name in ("x", "y"))
    w_std, b_std, reg = (float(problem[name]) for name in ("w_std", "b_std", "reg"))
    layers = int(problem["layers"])
    initial = [torch.from_numpy(problem[f"p{i}"]) for i in range(2 * layers)]

    def network(params, x):
        for i in range(layers):
            weight, bias = params[2 * i], params[2 * i + 1]
            x = (w_std / math.sqrt(weight.shape[0])) * (x @ weight) + b_std * bias
            if i < layers - 1:
                x = torch.relu(x)
        return x

    def objective(params, start):
        loss = -(y * torch.log_softmax(network(params, x), dim=-1)).sum()
        return loss + 0.5 * reg * sum(
            ((a - b) ** 2).sum() for a, b in zip(params, start, strict=True)
        )

    gradient = vmap(grad_and_value(objective))
    value = vmap(objective)

    def train(rate, steps):
        params = [p.clone() for p in initial]
        # Members are rows of one tensor, so Adam's moments are each member's own.
        optimizer = torch.optim.Adam(params, lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        every = max(1, steps // arguments.checks)
        seconds, trace = 0.0, []
        for step in range(1, steps + 1):
            start = time.perf_counter()
            gradients, _ = gradient(params, initial)
            for param, g in zip(params, gradients, strict=True):
                param.grad = g
            optimizer.step()
            schedule.step()
            seconds += time.perf_counter() - start
            if step % every == 0:  # what it costs to look is not counted
                with torch.no_grad():
                    trace.append((seconds, value(params, initial).tolist()))
        return trace

    train(arguments.rates[0], 2)  # warm up
    runs = {
        f"PyTorch Adam with {rate:g} over {steps} steps": train(rate, steps)
        for rate in arguments.rates
        for steps in arguments.steps
    }
    with open(arguments.result, "w") as file:
        json.dump(runs, file)


if __name__ == "__main__":
    main()
