"""Attention that does not cross documents, two ways, over what `return_documents=True` gives with each batch.

python examples/document_attention.py SHARDS

By mask, with flex attention: the batch keeps its shape, and a position sees those before it of its own document. By
lengths, with variable-length attention: rows are laid end to end, and each segment is a sequence of its own. Both give
the same; on CUDA both are one kernel (compile the first), on the CPU the second is a loop.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import nanofast
from nanofast.documents import BatchDocuments


def attend_by_mask(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, documents: BatchDocuments) -> Tensor:
    """Flex attention; wrap it in `torch.compile` on CUDA."""
    ids_BT = documents.document_ids_BT
    B, T = ids_BT.shape

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (ids_BT[b, query] == ids_BT[b, key])

    mask = create_block_mask(sees, B, None, T, T, device=ids_BT.device)
    return flex_attention(q_BHTD, k_BHTD, v_BHTD, block_mask=mask)  # type: ignore[return-value]


def attend_by_lengths(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, documents: BatchDocuments) -> Tensor:
    """Variable-length attention over the batch's rows laid end to end."""
    B, H, T, D = q_BHTD.shape
    q_NHD, k_NHD, v_NHD = (x.transpose(1, 2).reshape(B * T, H, D) for x in (q_BHTD, k_BHTD, v_BHTD))
    if q_BHTD.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        # the fixed-size `cu_seqlens` keeps shapes static: sequences behind the last one are empty
        borders, longest = documents.cu_seqlens, documents.max_seqlen
        out_NHD = varlen_attn(q_NHD, k_NHD, v_NHD, borders, borders, longest, longest, is_causal=True)
    else:
        out_NHD = torch.cat(
            [
                torch.nn.functional.scaled_dot_product_attention(
                    *(x[start:end].transpose(0, 1) for x in (q_NHD, k_NHD, v_NHD)), is_causal=True
                ).transpose(0, 1)
                for start, end in segments(documents)
            ]
        )
    return out_NHD.view(B, T, H, D).transpose(1, 2)


def segments(documents: BatchDocuments) -> Iterator[tuple[int, int]]:
    """Where each segment begins and ends among the batch's positions."""
    return pairwise(documents.cu_seqlens[: documents.num_segments + 1].tolist())


def main() -> None:
    """Compare both on one batch."""
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(sys.argv[1], tokenizer, 2, 128, return_documents=True) as loader:
        _, _, documents = next(loader)
    q, k, v = torch.randn(3, 2, 4, 128, 32).unbind()
    one, other = (attend(q, k, v, documents) for attend in (attend_by_mask, attend_by_lengths))
    for number in range(len(documents.pieces)):
        print(documents.name(number), documents.pieces[number]["num_tokens"], "tokens")
    print("largest difference:", (one - other).abs().max().item())


if __name__ == "__main__":
    main()
