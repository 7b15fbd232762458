"""The plain twin of the CUDA kernels: their tiling, in a few lines of torch.

The same tiles of 32 features, shares of eight warps, blocks of an image and
clusters of blocks, added in the same order, with operands rounded or split as
the tensor cores take them; in float64 nothing is rounded, which leaves the
tiling alone. Slow, and for tests: they compare it with the formula of the paper
on one side and with the kernels on the other. See ops/README.md.
"""
from typing import Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ['Tiling', 'encode_backward', 'encode_forward']

TILE = 32  # features in a tile
WARPS = 8  # each has an eighth of a chunk of channels
GROUP = 32  # codewords that a product takes at once

Maps = Dict[int, Tensor]  # (K, n) of each tile, by its first feature


class Tiling(NamedTuple):
    """How the kernels cut the work up.

    Args:
        chunk (int): channels in shared memory at once, a multiple of 128.
        blocks (int): that share the tiles of all images.
        cluster (int): blocks of a team, which add up their sums on the chip.
    """
    chunk: int
    blocks: int = 1
    cluster: int = 1


def parts_of(image: int, batch: int, count: int,
             tiling: Tiling) -> List[List[List[slice]]]:
    """Tiles of an image of ``count`` features: of each team, of each block.

    A team has a run of the tiles of all images, in which its blocks share what
    is of one image.
    """
    starts = range(0, count, TILE)
    first, teams = image * len(starts), tiling.blocks // tiling.cluster
    edges = [batch * len(starts) * i // teams - first for i in range(teams + 1)]
    parts = []
    for begin, end in zip(edges, edges[1:]):
        own = starts[max(begin, 0):max(end, 0)]
        cuts = [len(own) * i // tiling.cluster for i in range(tiling.cluster + 1)]
        if own:
            parts.append([[slice(i, min(i + TILE, count)) for i in own[a:b]]
                          for a, b in zip(cuts, cuts[1:])])
    return parts


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
    """What becomes of one image of a batch.

    Args:
        x (Tensor): features of all images (B, D, N).
        index (int): of this one.
        codewords (Tensor): (K, D).
        scale (Tensor): (K, ).
        tiling (Tiling): see there.
    """

    def __init__(self, x: Tensor, index: int, codewords: Tensor, scale: Tensor,
                 tiling: Tiling):
        self.parts = parts_of(index, x.size(0), x.size(2), tiling)
        x = x[index]
        self.core, self.tiling = CORES[x.dtype], tiling
        self.steepness = scale.unsqueeze(1)  # (K, 1)
        self.mean = codewords.mean(0)
        if not self.core.centred:
            self.mean = torch.zeros_like(self.mean)
        self.codes = self.pad(codewords - self.mean)  # (K, whole chunks)
        self.x = self.pad(x.to(self.core.dtype).t() - self.mean).t()
        self.norms = self.codes.square().sum(1, keepdim=True)  # (K, 1)
        self.tiles = [tile for team in self.parts for own in team for tile in own]

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

    def sum_of_features(self, maps: Maps) -> Tensor:
        """sum_i map_ki x_i (K, D): blocks, then teams, then the image."""
        whole = self.codes.size(1) == self.tiling.chunk
        whole = whole and self.codes.size(0) <= GROUP
        nothing = torch.zeros_like(self.codes)

        def sum_of_block(tiles: List[slice]) -> Tensor:
            total = nothing
            for tile in tiles:
                added = add_product(
                    total if whole else nothing, maps[tile.start],
                    self.x[:, tile].t(), self.core)
                total = added if whole else total + added
            return total

        return sum(sum(map(sum_of_block, team)) for team in self.parts)

    def sum_of_rows(self, maps: Maps) -> Tensor:
        """sum_i map_ki (K, 1), likewise."""
        return sum(
            sum(maps[tile.start].sum(1, keepdim=True) for tile in own)
            for team in self.parts for own in team)

    def forward(self) -> Tensor:
        """Encodings (K, D)."""
        maps = {tile.start: self.core.operand(self.assign(tile)[0])
                for tile in self.tiles}
        mass = self.sum_of_rows(maps)
        return self.unpad(self.sum_of_features(maps) - mass * self.codes)

    def backward(self, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Gradients of x (D, N), codewords (K, D) and scale (K, 1)."""
        grad = self.pad(grad)
        operand = self.core.operand(grad)
        offset = (operand * self.codes).sum(1, keepdim=True)  # (K, 1)
        assignments, logits, spreads, grad_x = {}, {}, {}, []
        for tile in self.tiles:
            assigned, square = self.assign(tile)
            grad_a = product_of_shares(
                operand, self.x[:, tile], self.tiling.chunk, self.core) - offset
            logit = assigned * (
                grad_a - (assigned * grad_a).sum(0, keepdim=True))
            steep = self.core.operand(-2 * self.steepness * logit)
            assigned, logit = map(self.core.operand, (assigned, logit))
            assignments[tile.start], logits[tile.start] = assigned, logit
            spreads[tile.start] = logit * square
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
        [Image(x, i, codewords, scale, tiling).forward() for i in range(len(x))])


def encode_backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
                    tiling: Tiling) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, )."""
    images = [Image(x, i, codewords, scale, tiling).backward(own)
              for i, own in enumerate(grad)]
    grad_x, grad_codewords, grad_scale = zip(*images)
    return (torch.stack(grad_x).to(x.dtype), sum(grad_codewords),
            sum(grad_scale).squeeze(1))
