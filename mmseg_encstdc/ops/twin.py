"""The plain twin of the CUDA kernels: their tiling, in a few lines of torch.

The same tiles of 32 features, shares of eight warps, blocks of an image and
clusters of blocks, added in the same order, with operands rounded or split as
the tensor cores take them; in float64 nothing is rounded, which leaves the
tiling alone. Slow, and for tests: they compare it with the formula of the paper
on one side and with the kernels on the other. See ops/README.md.
"""
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ['Tiling', 'encode_backward', 'encode_forward']

TILE = 32  # features in a tile
WARPS = 8  # each has an eighth of a chunk of channels
GROUP = 32  # codewords that a product takes at once


class Tiling(NamedTuple):
    """How the kernels cut the work up.

    Args:
        chunk (int): channels in shared memory at once, a multiple of 128.
        splits (int): blocks that share an image.
        cluster (int): of these, blocks that add up their sums on the chip.
    """
    chunk: int
    splits: int = 1
    cluster: int = 1


# --- Tensor cores ------------------------------------------------------------


def cut(value: Tensor) -> Tensor:
    """float32 without the 13 bits that tf32 lacks."""
    return (value.view(torch.int32) & -8192).view(torch.float32)


class Exact:
    """float64: no rounding."""
    depth, centred, dtype = 8, True, torch.float64

    @staticmethod
    def operand(value: Tensor) -> Tensor:
        """As it is kept in shared memory."""
        return value

    @staticmethod
    def terms(left: Tensor, right: Tensor,
              codes: bool) -> List[Tuple[Tensor, Tensor]]:
        """Products that stand for one; ``codes``: left are codewords."""
        return [(left, right)]


class Tf32(Exact):
    """float32 and float16: 3xTF32."""
    dtype = torch.float32

    @staticmethod
    def terms(left, right, codes):
        high, right_high = cut(left), cut(right)
        low, right_low = cut(left - high), cut(right - right_high)
        return [(low, right_high), (high, right_low), (high, right_high)]


class BFloat16(Tf32):
    """bfloat16: codewords of distances in two terms, all else in one."""
    depth, centred = 16, False

    @staticmethod
    def operand(value):
        return value.bfloat16().float()

    @staticmethod
    def terms(left, right, codes):
        high = left.bfloat16().float()
        low = (left - high).bfloat16().float()
        return [(low, right), (high, right)] if codes else [(high, right)]


CORES = {
    torch.float64: Exact,
    torch.float32: Tf32,
    torch.float16: Tf32,
    torch.bfloat16: BFloat16,
}


def add_product(total: Tensor, left: Tensor, right: Tensor, core,
                codes: bool = False) -> Tensor:
    """total + left (..., M, depth) right (..., depth, N), depth by depth."""
    for k in range(0, left.size(-1), core.depth):
        part = slice(k, k + core.depth)
        for a, b in core.terms(left[..., part], right[..., part, :], codes):
            total = total + a @ b
    return total


# --- A tile ------------------------------------------------------------------


def product_of_shares(rows: Tensor, x: Tensor, chunk: int, core,
                      codes: bool = False) -> Tensor:
    """rows (K, D) x (D, n), as the warps add up their shares: (K, n)."""
    total = x.new_zeros(rows.size(0), x.size(1))
    for first in range(0, x.size(0), chunk):
        part = slice(first, first + chunk)
        left = rows[:, part].unflatten(1, (WARPS, -1)).transpose(0, 1)
        right = x[part].unflatten(0, (WARPS, -1))  # (WARPS, slice, n)
        shares = add_product(
            x.new_zeros(WARPS, *total.shape), left, right, core, codes)
        for low, high in zip(shares[:4], shares[4:]):
            total = total + (low + high)
    return total


def square_of_shares(x: Tensor, chunk: int) -> Tensor:
    """|x|^2 of x (D, n), added up likewise: (n, )."""
    shares = x.square().unflatten(0, (-1, WARPS, chunk // WARPS)).sum(2)
    return sum(shares.sum(0))  # over the chunks, then over the warps


class Image:
    """The blocks that share an image.

    Args:
        x (Tensor): features (D, N).
        codewords (Tensor): (K, D).
        scale (Tensor): (K, ).
        tiling (Tiling): see there.
    """

    def __init__(self, x: Tensor, codewords: Tensor, scale: Tensor,
                 tiling: Tiling):
        self.core, self.tiling = CORES[x.dtype], tiling
        self.steepness = scale.unsqueeze(1)  # (K, 1)
        self.mean = codewords.mean(0)
        if not self.core.centred:
            self.mean = torch.zeros_like(self.mean)
        self.codes = self.pad(codewords - self.mean)  # (K, whole chunks)
        self.x = self.pad(x.to(self.core.dtype).t() - self.mean).t()
        self.norms = self.codes.square().sum(1, keepdim=True)  # (K, 1)
        count = x.size(1)
        tiles = [slice(i, min(i + TILE, count)) for i in range(0, count, TILE)]
        edges = [len(tiles) * i // tiling.splits
                 for i in range(tiling.splits + 1)]
        # Those of each block.
        self.tiles = [tiles[a:b] for a, b in zip(edges, edges[1:])]

    def pad(self, rows: Tensor) -> Tensor:
        """(..., D) with zeros up to whole chunks."""
        return pad(rows, (0, -rows.size(1) % self.tiling.chunk))

    def unpad(self, rows: Tensor) -> Tensor:
        return rows[:, :self.mean.size(0)]

    def assign(self, tile: slice) -> Tuple[Tensor, Tensor]:
        """Assignments (K, n) and |x|^2 (n, ) of a tile."""
        x = self.x[:, tile]
        dots = product_of_shares(
            self.codes, x, self.tiling.chunk, self.core, codes=True)
        square = square_of_shares(x, self.tiling.chunk)
        logits = self.steepness * (square - 2 * dots + self.norms)
        return logits.softmax(0), square

    def sum_of_features(self, maps: List[List[Tensor]]) -> Tensor:
        """sum_i map_ki x_i (K, D), of maps (K, n) of each block's tiles."""
        whole = self.codes.shape[1] == self.tiling.chunk
        whole = whole and self.codes.shape[0] <= GROUP
        blocks = []
        for tiles, own in zip(self.tiles, maps):
            total = nothing = torch.zeros_like(self.codes)
            for tile, values in zip(tiles, own):
                start = total if whole else nothing
                added = add_product(
                    start, values, self.x[:, tile].t(), self.core)
                total = added if whole else total + added
            blocks.append(total)
        size = self.tiling.cluster
        return sum(sum(blocks[i:i + size]) for i in range(0, len(blocks), size))

    @staticmethod
    def sum_of_rows(maps: List[List[Tensor]]) -> Tensor:
        """sum_i map_ki (K, 1), likewise."""
        return sum(
            sum(values.sum(1, keepdim=True) for values in own) for own in maps)

    def forward(self) -> Tensor:
        """Encodings (K, D)."""
        maps = [[self.core.operand(self.assign(tile)[0]) for tile in tiles]
                for tiles in self.tiles]
        mass = self.sum_of_rows(maps)
        return self.unpad(self.sum_of_features(maps) - mass * self.codes)

    def backward(self, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Gradients of x (D, N), codewords (K, D) and scale (K, 1)."""
        grad = self.pad(grad)
        operand = self.core.operand(grad)
        offset = (operand * self.codes).sum(1, keepdim=True)  # (K, 1)
        assignments, logits, spreads, grad_x = [], [], [], []
        for tiles in self.tiles:
            for maps in (assignments, logits, spreads):
                maps.append([])
            for tile in tiles:
                assigned, square = self.assign(tile)
                grad_a = product_of_shares(
                    operand, self.x[:, tile], self.tiling.chunk,
                    self.core) - offset
                logit = assigned * (
                    grad_a - (assigned * grad_a).sum(0, keepdim=True))
                steep = self.core.operand(-2 * self.steepness * logit)
                assigned, logit = map(self.core.operand, (assigned, logit))
                assignments[-1].append(assigned)
                logits[-1].append(logit)
                spreads[-1].append(logit * square)
                grad_x.append(self.grad_features(operand, assigned, steep, tile))
        pulled, pull = self.sum_of_features(logits), self.sum_of_rows(logits)
        mass, spread = self.sum_of_rows(assignments), self.sum_of_rows(spreads)
        grad_codes = -(mass * grad + 2 * self.steepness *
                       (pulled - pull * self.codes))
        grad_scale = spread + self.norms * pull - 2 * (
            self.codes * pulled).sum(1, keepdim=True)
        return torch.cat(grad_x, 1), self.unpad(grad_codes), grad_scale

    def grad_features(self, grad: Tensor, assigned: Tensor, steep: Tensor,
                      tile: slice) -> Tensor:
        """The gradient of a tile, (D, n); ``steep`` is -2 s_k dl_k (K, n)."""
        x = self.x[:, tile]
        out = torch.zeros_like(x)
        for k in range(0, grad.size(0), GROUP):
            group = slice(k, k + GROUP)
            out = add_product(out, grad[group].t(), assigned[group], self.core)
            out = add_product(out, self.codes[group].t(), steep[group], self.core)
        return self.unpad((out - steep.sum(0) * x).t()).t()


def encode_forward(x: Tensor, codewords: Tensor, scale: Tensor,
                   tiling: Tiling) -> Tensor:
    """Encodings (B, K, D) of features (B, D, N)."""
    return torch.stack(
        [Image(image, codewords, scale, tiling).forward() for image in x])


def encode_backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
                    tiling: Tiling) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, )."""
    images = [Image(image, codewords, scale, tiling).backward(own)
              for image, own in zip(x, grad)]
    grad_x, grad_codewords, grad_scale = zip(*images)
    return (torch.stack(grad_x).to(x.dtype), sum(grad_codewords),
            sum(grad_scale).squeeze(1))
