"""Which type activations have: decided by the device, on a CPU by a quick measurement, never by a guess.

The choice is part of a checkpoint, so that a resumed run computes as it did before.

    dtype, reason = choose_dtype("auto", torch.device("cpu"), n_embd=256, num_tokens=2048)
    # torch.bfloat16, "bfloat16 measured 2.1 x float32 on this CPU"
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

# Below this gain the coarser numbers are not worth it: norms, rotations and the soft cap gain nothing from them.
WORTHWHILE_RATIO = 1.25
ROUNDS = 5  # alternating; the median forgives two disturbed rounds


def _mlp_seconds(dtype: torch.dtype, n_embd: int, num_tokens: int) -> float:
    """Processor time of one MLP, forward and backward, weight casts included; on a CPU all of it is this thread's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_tokens, n_embd, generator=generator).to(dtype).requires_grad_()
    widen = torch.randn(4 * n_embd, n_embd, generator=generator).requires_grad_()
    narrow = torch.randn(n_embd, 4 * n_embd, generator=generator).requires_grad_()
    start = time.thread_time()
    F.linear(F.relu(F.linear(x, widen.to(dtype))).square(), narrow.to(dtype)).sum().backward()  # type: ignore[no-untyped-call]
    return time.thread_time() - start


def measure_cpu_ratio(n_embd: int, num_tokens: int) -> float:
    """How many times faster bfloat16 is than float32 on this CPU, for matrices of this model's size."""
    tokens = min(num_tokens, 1024)  # enough to fill the kernels, and the whole measurement stays well under a second
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # processor time of one thread does not see the machine's other work, as a clock would
    try:
        for _ in range(ROUNDS):
            for dtype, times in seconds.items():
                times.append(_mlp_seconds(dtype, n_embd, tokens))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(seconds[torch.float32]) / statistics.median(seconds[torch.bfloat16])


def choose_dtype(wanted: str, device: torch.device, n_embd: int, num_tokens: int) -> tuple[torch.dtype, str]:
    """The activations' type and why, in words for the user."""
    if wanted != "auto":
        return getattr(torch, wanted), "as configured"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU computes in bfloat16"
        return torch.float32, "this GPU has no bfloat16"
    if device.type == "cpu":
        ratio = measure_cpu_ratio(n_embd, num_tokens)
        name = "bfloat16" if ratio >= WORTHWHILE_RATIO else "float32"
        return getattr(torch, name), f"bfloat16 measured {ratio:.1f} x the speed of float32 on this CPU"
    return torch.float32, f"bfloat16 on {device.type} is used only when asked for"
