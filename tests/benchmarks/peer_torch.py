"""The same model and training step in PyTorch, eager or compiled, on the CPU or a GPU.

python -m tests.benchmarks.peer_torch JOB [--gpu] [--compile] [--flex]

Runs under the interpreter of an environment of its own: no lock holds torch. Attention is
`scaled_dot_product_attention`, or with --flex `flex_attention`, whose kernel skips what a mask of
documents leaves out (pytorch.org/blog/flexattention).
"""

import sys
from collections.abc import Callable

import numpy as np
import torch  # pants: no-infer-dep  # ty: ignore[import-not-found]
import torch.nn.attention.flex_attention as fa  # pants: no-infer-dep  # ty: ignore[import-not-found]
import torch.nn.functional as F  # pants: no-infer-dep  # ty: ignore[import-not-found]
from torch import Tensor, nn  # pants: no-infer-dep  # ty: ignore[import-not-found]

from tests.benchmarks.worker import Job, Step, cores, peak_bytes, serve

Rope = tuple[Tensor, Tensor]
Mask = Tensor | fa.BlockMask | None


def rope_angles(positions: Tensor, head_dim: int, theta: float) -> Rope:
    """Cosine and sine, (B, 1, S, head_dim / 2)."""
    exponents = torch.arange(head_dim // 2, device=positions.device) / (head_dim // 2)
    angles = positions[:, None, :, None] * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Causal attention, of heads (B, heads, S, head_dim), where there is no mask."""
    if isinstance(mask, fa.BlockMask):  # which autocast does not know
        return fa.flex_attention(q.to(v.dtype), k.to(v.dtype), v, block_mask=mask, enable_gqa=True)
    causal = mask is None
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True
    )


def document_blocks(segment_ids: Tensor, create: Callable[..., fa.BlockMask]) -> fa.BlockMask:
    """Which blocks of queries and keys share a document, from (B, S) segment ids.

    `create` is `create_block_mask`, compiled or not.
    """

    def same_document(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segment_ids[row, query] == segment_ids[row, key])

    rows, length = segment_ids.shape
    return create(same_document, rows, None, length, length, segment_ids.device)


class Attention(nn.Module):
    def __init__(self, model: dict):
        super().__init__()
        width = model["d_model"]
        self.heads, self.kv_heads, self.head_dim = (
            model[name] for name in ("n_heads", "n_kv_heads", "head_dim")
        )
        self.q = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o = nn.Linear(self.heads * self.head_dim, width, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(self.head_dim, eps=1e-6)

    def forward(self, x: Tensor, rope: Rope, mask: Mask) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = (
            linear(x).view(rows, length, heads, self.head_dim).transpose(1, 2)
            for linear, heads in (
                (self.q, self.heads),
                (self.k, self.kv_heads),
                (self.v, self.kv_heads),
            )
        )
        q, k = rotate(self.q_norm(q), rope), rotate(self.k_norm(k), rope)
        y = attend(q, k, v, mask)
        return self.o(y.transpose(1, 2).reshape(rows, length, -1))


class Block(nn.Module):
    def __init__(self, model: dict):
        super().__init__()
        width, hidden = model["d_model"], model["d_ff"]
        self.attn_norm = nn.RMSNorm(width, eps=1e-6)
        self.attn = Attention(model)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, rope: Rope, mask: Mask) -> Tensor:
        x = x + self.attn(self.attn_norm(x), rope, mask)
        return x + self.down(F.relu(self.up(self.mlp_norm(x))).square())


class Transformer(nn.Module):
    def __init__(self, model: dict, z_loss: float, *, packed: bool):
        """Without `packed` every row is one document: it needs no mask, and so no --flex."""
        super().__init__()
        self.head_dim, self.rope_theta = model["head_dim"], model["rope_theta"]
        self.z_loss, self.packed = z_loss, packed
        self.embed = nn.Embedding(model["vocab_size"], model["d_model"])
        self.embed_norm = nn.RMSNorm(model["d_model"], eps=1e-6)
        self.blocks = nn.ModuleList(Block(model) for _ in range(model["n_layers"]))
        self.final_norm = nn.RMSNorm(model["d_model"], eps=1e-6)
        self.head = nn.Linear(model["d_model"], model["vocab_size"], bias=False)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor,
        segment_ids: Tensor,
        positions: Tensor,
        loss_weights: Tensor,
        mask: Mask = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss and the cross-entropy in it, means over the real targets."""
        if mask is None and self.packed:
            length = tokens.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
            mask = causal & (segment_ids[:, None, :, None] == segment_ids[:, None, None, :])
        rope = rope_angles(positions, self.head_dim, self.rope_theta)
        x = self.embed_norm(self.embed(tokens))
        for block in self.blocks:
            x = block(x, rope, mask)
        logits = self.head(self.final_norm(x)).flatten(0, 1).float()
        weights = loss_weights.flatten() / loss_weights.sum()
        targets = targets.flatten()
        nll = F.cross_entropy(logits, targets, reduction="none")
        log_z = nll + logits.gather(1, targets[:, None])[:, 0]  # half the time of logsumexp
        cross_entropy = (nll * weights).sum()
        return cross_entropy + self.z_loss * (log_z.square() * weights).sum(), cross_entropy


# The template's weights and ours; {} is the layer.
NAMES = {
    "embed": "embed.weight",
    "embed_norm.scale": "embed_norm.weight",
    "blocks.attn_norm.scale": "blocks.{}.attn_norm.weight",
    "blocks.attn.w_q": "blocks.{}.attn.q.weight",
    "blocks.attn.w_k": "blocks.{}.attn.k.weight",
    "blocks.attn.w_v": "blocks.{}.attn.v.weight",
    "blocks.attn.w_o": "blocks.{}.attn.o.weight",
    "blocks.attn.q_norm.scale": "blocks.{}.attn.q_norm.weight",
    "blocks.attn.k_norm.scale": "blocks.{}.attn.k_norm.weight",
    "blocks.mlp_norm.scale": "blocks.{}.mlp_norm.weight",
    "blocks.mlp.w_up": "blocks.{}.up.weight",
    "blocks.mlp.w_down": "blocks.{}.down.weight",
    "final_norm.scale": "final_norm.weight",
    "head": "head.weight",
}


@torch.no_grad()
def load(model: Transformer, weights: dict[str, np.ndarray]) -> None:
    """Copies the template's weights; its blocks are stacked. KeyError: one has no place here."""
    for name, values in weights.items():
        layers = values if name.startswith("blocks.") else [values]
        for layer, value in enumerate(layers):
            parameter = model.get_parameter(NAMES[name].format(layer))
            tensor = torch.from_numpy(np.array(value))
            if parameter.ndim == 2 and name != "embed":
                tensor = tensor.reshape(parameter.shape[::-1]).T  # (in, out) there, (out, in) here
            parameter.copy_(tensor)


def make_optimizer(model: Transformer, config: dict) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},  # norms
        ],
        lr=config["learning_rate"],
        betas=(config["beta1"], config["beta2"]),
        weight_decay=config["weight_decay"],
        fused=True,
    )


def build(job: Job) -> Step:
    torch.set_num_threads(cores())
    device = "cuda" if "--gpu" in sys.argv else "cpu"
    config, host_batches = job.config, job.batches
    packed = any((batch["segment_ids"] != 1).any() for batch in host_batches)
    model = Transformer(config["model"], config["z_loss"], packed=packed).to(device)
    load(model, job.weights)
    optimizer = make_optimizer(model, config)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config["steps"])
    batches = [
        {
            name: torch.from_numpy(np.array(values)).to(
                device, torch.long if name in ("tokens", "targets") else None
            )
            for name, values in batch.items()
        }
        for batch in host_batches
    ]
    forward, create = model, fa.create_block_mask
    if "--compile" in sys.argv:
        forward, create = torch.compile(model), torch.compile(fa.create_block_mask)
    half = config["model"]["compute_dtype"] == "bfloat16"

    def step(index: int) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        batch = batches[index % len(batches)]
        is_flex = "--flex" in sys.argv
        mask = document_blocks(batch["segment_ids"], create) if is_flex else None
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss, cross_entropy = forward(**batch, mask=mask)
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        optimizer.step()
        schedule.step()
        return cross_entropy.detach(), grad_norm

    return step


def peak() -> int:
    """Bytes of a GPU's own memory, else of this process."""
    return torch.cuda.max_memory_allocated() if "--gpu" in sys.argv else peak_bytes()


if __name__ == "__main__":
    serve(build, {"torch": torch.__version__}, peak=peak)
