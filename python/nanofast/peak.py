"""How fast a device could multiply matrices: by its name from a table, else by measuring it.

The share of this rate that training uses is the MFU (PaLM, Chowdhery et al. 2022). An unknown device gives a measured
rate, never a share of zero or infinity; the log says which of the two was used.

    rate, source = peak_flops(torch.device("cpu"), torch.bfloat16)
"""

from __future__ import annotations

import time

import torch

# Dense bfloat16 rates in FLOP/s by a part of the device's name, from the makers' data sheets; the first match counts.
BFLOAT16_PEAKS = (
    ("GB200", 2.5e15),
    ("B200", 2.25e15),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("RTX A6000", 155e12),
    ("RTX 5090", 209e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)
MEASURED_SIZE = 1024  # rows and columns: large enough to fill the kernels, 2 GFLOP a product
MEASURED_ROUNDS = 10  # the best of these: a peak is what the device can do, not what its neighbours left over


def _measure(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few square products."""
    a = torch.randn(MEASURED_SIZE, MEASURED_SIZE, device=device).to(dtype)
    best = float("inf")
    for _ in range(MEASURED_ROUNDS):
        start = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * MEASURED_SIZE**3 / best


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The rate in FLOP/s and where it comes from, in words."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, rate in BFLOAT16_PEAKS:
            if part in name:
                return rate, f"data sheet of {part}, dense bfloat16"
    name = str(dtype).removeprefix("torch.")
    return _measure(device, dtype), f"measured, {MEASURED_SIZE} x {MEASURED_SIZE} {name} products"
