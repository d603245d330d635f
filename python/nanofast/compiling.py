"""torch.compile where it pays: on CUDA, block by block, with static shapes.

All blocks have the same code, so compiling them one by one costs one compilation. On a CPU it gains a tenth (2-core Zen
4 server VM, default model: 2,960 → 3,250 tokens/s a core) and costs more than it gains in a run of minutes; on MPS
compiled models have given NaN (pytorch#171764). There it is off unless asked for. A missing compiler or Triton is found
by a probe first.

    is_on, reason = compile_blocks(model, "auto", torch.device("cuda"))
"""

from __future__ import annotations

import torch
from torch import nn

from nanofast.model import GPT


def probe(device: torch.device) -> str | None:
    """Why compiling does not work here, in a line; None when it does."""
    try:
        compiled = torch.compile(lambda x: (x * 2 + 1).sum())
        found = float(compiled(torch.ones(64, device=device)))
    except Exception as error:  # whatever a broken tool chain raises
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return None if found == 192.0 else f"the probe gave {found} instead of 192"


def compile_blocks(model: GPT, wanted: str, device: torch.device) -> tuple[bool, str]:
    """Compile the blocks in place if wanted (`on`, `off`, `auto`) and possible; whether it was done, and why."""
    if wanted == "off":
        return False, "as configured"
    if wanted == "auto" and device.type != "cuda":
        return False, f"on {device.type} it costs more than it gains in most runs; --compile on asks for it"
    obstacle = probe(device)
    if obstacle is not None:
        return False, f"the compiler does not work here ({obstacle})"
    for block in model.blocks:
        assert isinstance(block, nn.Module)
        block.compile(dynamic=False)
    return True, "block by block, static shapes"


def compile_now(model: GPT, rows: int, device: torch.device) -> None:
    """Have done with compiling before the first step: pass `rows` rows through, with gradients and without.

    Weights stay as they are; gradients have to be set to zero.
    """
    ids_BT = torch.zeros(rows, model.config.sequence_length, dtype=torch.int64, device=device)
    torch.autograd.backward(model.loss(ids_BT.to(torch.int32), ids_BT)[0])
    with torch.no_grad():
        model.loss(ids_BT.to(torch.int32), ids_BT)
