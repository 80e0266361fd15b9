"""Transformer blocks of the decoder: plain ones per image, and cross-view ones per image row over all cameras."""

from torch import Tensor, nn

from models.initialise import init_linear
from models.layers import Mlp, dot_product_attention


class SelfAttention(nn.Module):
    """Full multi-head self-attention, (G, T, C) -> (G, T, C)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm ViT block on the tokens of each image: (M, H, W, C) -> the same."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        init_linear(self)

    def forward(self, x: Tensor, views: int) -> Tensor:
        x = x + self.attend(self.norm1(x), views)
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor, views: int) -> Tensor:
        return self.attn(x.flatten(1, 2)).view_as(x)


class CrossViewBlock(Block):
    """The block with attention over ONE IMAGE ROW across all views (cross-view attention, section 3.3 of the paper).

    Neighbouring cameras see neighbouring parts of the scene at about the same height in their images, so a row of
    views x W tokens is where they can help each other. Starts as the identity: both branches end in zeros.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__(dim, num_heads, mlp_ratio)
        for layer in (self.attn.proj, self.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def attend(self, x: Tensor, views: int) -> Tensor:
        m, height, width, channels = x.shape
        rows = x.view(-1, views, height, width, channels).transpose(1, 2)  # (M / views, H, views, W, C)
        out = self.attn(rows.reshape(-1, views * width, channels))
        return out.view(-1, height, views, width, channels).transpose(1, 2).reshape(m, height, width, channels)
