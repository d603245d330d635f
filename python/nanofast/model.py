"""A GPT as small-model practice has it: rotary positions, RMSNorm without parameters, QK norm, squared ReLU, no biases,
an untied head and a soft cap on the logits. It knows nothing of data, optimizers or devices.

Nanochat's shape has three more parts, each a field of the configuration: layers that see a window (attention.py),
value embeddings, and learned scales of the residual stream and of the embedding that is added to it again.

Shapes are suffixes: B batch, T time, C channels (n_embd), H heads, D channels of a head, V vocabulary (padded).
`x_BTC` is a tensor [B, T, C].

Weights are float32; activations are `compute_dtype`. A `Linear` casts its weight when it is used, so the optimizer
always works on full precision and there is no second copy to keep equal.

    model = GPT(GPTConfig(vocab_size=4096, sequence_length=256, n_layer=4, n_head=4, n_embd=256))
    model.initialize(torch.Generator().manual_seed(0))
    loss, loss_BT = model.loss(inputs_BT, targets_BT)      # nats: the sum, and each target's
    logits_BTV = model(inputs_BT)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanofast.attention import attend, attend_behind
from nanofast.fused import capped_loss, rms_norm

IGNORED = -1  # a target that is not learned
# Of nanochat's shape, as its author has them: the channels that a gate of value embeddings reads, and how much of the
# embedding each layer adds to the stream at first.
GATE_CHANNELS = 32
START_SCALE = 0.1


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model; everything needed to build it again."""

    vocab_size: int
    sequence_length: int
    n_layer: int
    n_head: int
    n_embd: int
    rope_base: float = 10_000.0
    logit_soft_cap: float = 15.0
    window_pattern: str = "L"
    has_value_embeddings: bool = False
    has_residual_scales: bool = False

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and the head: a multiple of 64, which matrix kernels like."""
        return -(-self.vocab_size // 64) * 64

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.n_embd // self.n_head

    @property
    def has_windows(self) -> bool:
        """Whether some layer sees a window only."""
        return any(self.window(layer) is not None for layer in range(self.n_layer))

    def window(self, layer: int) -> int | None:
        """Positions that a layer sees, itself among them: a quarter of the sequence where its letter is S, else all.

        The letters of the pattern go to the layers in turn; the last layer always sees everything.
        """
        letter = "L" if layer == self.n_layer - 1 else self.window_pattern[layer % len(self.window_pattern)]
        return max(1, self.sequence_length // 4) if letter == "S" else None

    def has_value_embedding(self, layer: int) -> bool:
        """Every other layer, the last among them."""
        return self.has_value_embeddings and (self.n_layer - 1 - layer) % 2 == 0


class Linear(nn.Linear):
    """A matrix without bias that is cast to its input's dtype when used."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """`input` times the matrix, in the input's dtype."""
        return F.linear(input, self.weight.to(input.dtype))


def rotary_tables(length: int, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin of position × frequency, [T, D/2] each (RoPE, Su et al. 2021)."""
    frequency_D = base ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angle_TD = torch.outer(torch.arange(length, dtype=torch.float32), frequency_D)
    return angle_TD.cos(), angle_TD.sin()


def rotate(x_BTHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turn each pair (channel i, channel i + D/2) by the angle of its position."""
    left, right = x_BTHD.chunk(2, dim=-1)
    cos, sin = cos_TD[:, None, :], sin_TD[:, None, :]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class KVCache:
    """Keys and values of the positions seen so far, for sampling. One per batch of texts."""

    def __init__(
        self, config: GPTConfig, batch_size: int, length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.n_layer, 2, batch_size, config.n_head, length, config.head_size)
        self.stored = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = length
        self.position = 0  # positions that every layer has stored; moved on by GPT.forward

    def repeated(self, rows: int) -> KVCache:
        """A cache of `rows` texts that all begin as this one's single text."""
        copy = KVCache.__new__(KVCache)
        copy.stored = self.stored.repeat(1, 1, rows, 1, 1, 1)
        copy.capacity, copy.position = self.capacity, self.position
        return copy

    def extend(self, layer: int, key_BHTD: Tensor, value_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store this step's keys and values and give back all of them so far."""
        end = self.position + key_BHTD.size(2)
        self.stored[layer, 0, :, :, self.position : end] = key_BHTD
        self.stored[layer, 1, :, :, self.position : end] = value_BHTD
        return self.stored[layer, 0, :, :, :end], self.stored[layer, 1, :, :, :end]


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normed queries and keys."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.window, self.window_kernel = layer, config.window(layer), "blocks"
        self.n_head = config.n_head
        self.query = Linear(config.n_embd, config.n_embd)
        self.key = Linear(config.n_embd, config.n_embd)
        self.value = Linear(config.n_embd, config.n_embd)
        self.output = Linear(config.n_embd, config.n_embd)
        if config.has_value_embedding(layer):
            self.gate = Linear(min(GATE_CHANNELS, config.n_embd), config.n_head)

    def forward(
        self,
        x_BTC: Tensor,
        cos_TD: Tensor,
        sin_TD: Tensor,
        cache: KVCache | None,
        value_embedding_BTC: Tensor | None = None,
    ) -> Tensor:
        """What each position reads from those before it."""
        B, T, C = x_BTC.shape
        query_BTHD = self.query(x_BTC).view(B, T, self.n_head, -1)
        key_BTHD = self.key(x_BTC).view(B, T, self.n_head, -1)
        value_BTHD = self.value(x_BTC).view(B, T, self.n_head, -1)
        if value_embedding_BTC is not None:  # each head takes as much of it as a gate lets through, at first all
            gate_BTH = 2.0 * torch.sigmoid(self.gate(x_BTC[..., : self.gate.in_features]))
            value_BTHD = value_BTHD + gate_BTH[..., None] * value_embedding_BTC.view(B, T, self.n_head, -1)
        query_BHTD = rms_norm(rotate(query_BTHD, cos_TD, sin_TD)).transpose(1, 2)
        key_BHTD = rms_norm(rotate(key_BTHD, cos_TD, sin_TD)).transpose(1, 2)
        value_BHTD = value_BTHD.transpose(1, 2)
        before = 0 if cache is None else cache.position
        if cache is not None:
            key_BHTD, value_BHTD = cache.extend(self.layer, key_BHTD, value_BHTD)
        if before == 0:
            y_BHTD = attend(query_BHTD, key_BHTD, value_BHTD, self.window, self.window_kernel)
        else:
            y_BHTD = attend_behind(query_BHTD, key_BHTD, value_BHTD, self.window)
        y_BTC: Tensor = self.output(y_BHTD.transpose(1, 2).reshape(B, T, C))
        return y_BTC


class MLP(nn.Module):
    """Four times wider, squared ReLU (Primer, So et al. 2021), and back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.widen = Linear(config.n_embd, 4 * config.n_embd)
        self.narrow = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Each position on its own."""
        y_BTC: Tensor = self.narrow(F.relu(self.widen(x_BTC)).square())
        return y_BTC


class Block(nn.Module):
    """Attention, then MLP, each reading a normed copy of the residual stream and adding to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x_BTC: Tensor,
        cos_TD: Tensor,
        sin_TD: Tensor,
        cache: KVCache | None,
        value_embedding_BTC: Tensor | None = None,
    ) -> Tensor:
        """The residual stream after this block."""
        x_BTC = x_BTC + self.attention(rms_norm(x_BTC), cos_TD, sin_TD, cache, value_embedding_BTC)
        y_BTC: Tensor = x_BTC + self.mlp(rms_norm(x_BTC))
        return y_BTC


class GPT(nn.Module):
    """The whole model: ids to losses, or ids to logits."""

    cos_TD: Tensor
    sin_TD: Tensor
    is_cut = False  # over the ranks, by fsdp.py

    def __init__(self, config: GPTConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.embedding = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.head = Linear(config.n_embd, config.padded_vocab_size)
        layers = [layer for layer in range(config.n_layer) if config.has_value_embedding(layer)]
        self.value_embeddings = nn.ModuleDict(
            {str(layer): nn.Embedding(config.padded_vocab_size, config.n_embd) for layer in layers}
        )
        if config.has_residual_scales:  # one of each for a layer
            self.stream_scale = nn.Parameter(torch.ones(config.n_layer))
            self.start_scale = nn.Parameter(torch.full((config.n_layer,), START_SCALE))
        cos_TD, sin_TD = rotary_tables(config.sequence_length, config.head_size, config.rope_base)
        self.register_buffer("cos_TD", cos_TD, persistent=False)
        self.register_buffer("sin_TD", sin_TD, persistent=False)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Fill all weights from a CPU generator, so that the start is the same on every device.

        Matrices that write to the residual stream start at zero: each block begins as the identity. The other matrices
        have the variance 1 / inputs, and the head is small, so that the first loss is ln(vocabulary). Gates start at
        zero, which lets the value embeddings through as they are.
        """
        for name, parameter in self.named_parameters():
            values = torch.empty(parameter.shape)
            if name.endswith(("output.weight", "narrow.weight", "gate.weight")):
                values.zero_()
            elif name == "stream_scale":
                values.fill_(1.0)
            elif name == "start_scale":
                values.fill_(START_SCALE)
            elif name == "embedding.weight":
                values.normal_(0.0, 1.0, generator=generator)
            elif name == "head.weight":
                values.normal_(0.0, 0.001, generator=generator)
            else:
                values.normal_(0.0, parameter.size(1) ** -0.5, generator=generator)
            parameter.copy_(values)

    def use_window_kernel(self, name: str) -> None:
        """Let a kernel of attention.py compute the layers that have a window."""
        for block in self.blocks:
            block.attention.window_kernel = name  # type: ignore[union-attr]  # modules in a list lose their type

    def hidden(self, inputs_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """The last layer's normed activations [B, T, C]."""
        start = 0 if cache is None else cache.position
        end = start + inputs_BT.size(1)
        if end > self.cos_TD.size(0):
            raise ValueError(
                f"position {end} is past the model's sequence_length {self.cos_TD.size(0)}; pass fewer tokens"
            )
        cos_TD = self.cos_TD[start:end].to(self.compute_dtype)
        sin_TD = self.sin_TD[start:end].to(self.compute_dtype)
        x_BTC = rms_norm(self.embedding(inputs_BT).to(self.compute_dtype))
        start_BTC = x_BTC
        for layer, block in enumerate(self.blocks):
            if self.config.has_residual_scales:
                x_BTC = self.stream_scale[layer] * x_BTC + self.start_scale[layer] * start_BTC
            value_embedding_BTC = None
            if self.config.has_value_embedding(layer):
                value_embedding_BTC = self.value_embeddings[str(layer)](inputs_BT).to(self.compute_dtype)
            x_BTC = block(x_BTC, cos_TD, sin_TD, cache, value_embedding_BTC)
        if cache is not None:
            cache.position = end
        return rms_norm(x_BTC)

    def logits(self, x: Tensor) -> Tensor:
        """Logits over the vocabulary of hidden activations [..., C], soft-capped, float32."""
        logits: Tensor = self.head(x)[..., : self.config.vocab_size].float()
        cap = self.config.logit_soft_cap
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

    def forward(self, inputs_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits [B, T, vocab_size], float32."""
        return self.logits(self.hidden(inputs_BT, cache))

    def loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of all losses in nats, to go backward from, and each target's [B, T], float32, 0 where a target is -1."""
        x_NC = self.hidden(inputs_BT).flatten(0, 1)
        weight_VC = self.head.weight[: self.config.vocab_size]
        loss, loss_N = capped_loss(x_NC, weight_VC, targets_BT.flatten(), self.config.logit_soft_cap)
        return loss, loss_N.view(targets_BT.shape)

    def parameters_by_kind(self) -> dict[str, list[Tensor]]:
        """Parameters as optimizers tell them apart: embedding, head, matrices; value embeddings and scales, if any."""
        kinds: dict[str, list[Tensor]] = {
            "embedding": [self.embedding.weight],
            "head": [self.head.weight],
            "matrices": [parameter for block in self.blocks for parameter in block.parameters()],
        }
        if self.config.has_value_embeddings:
            kinds["value_embeddings"] = list(self.value_embeddings.parameters())
        if self.config.has_residual_scales:
            kinds["scales"] = [self.stream_scale, self.start_scale]
        return kinds

    def count_parameters(self) -> dict[str, int]:
        """How many numbers each kind holds, and in all."""
        counts = {kind: sum(p.numel() for p in group) for kind, group in self.parameters_by_kind().items()}
        return {**counts, "total": sum(counts.values())}

    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token, forward and backward.

        Six for each weight of a matrix product (two forward, four backward; an embedding is a look-up), and for
        attention 12 · channels · T in each layer, counting the whole T × T square as is the custom (PaLM, Chowdhery et
        al. 2022), with the window instead of T in a layer that has one.
        """
        counts, length = self.count_parameters(), self.config.sequence_length
        seen = [self.config.window(layer) or length for layer in range(self.config.n_layer)]
        attention = 12 * self.config.n_embd * sum(seen)
        return 6 * (counts["matrices"] + counts["head"]) + attention
