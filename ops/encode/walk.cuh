// The loop of a block over its tiles of x. README.md has a diagram.
#pragma once
#include "backward.cuh"
#include "forward.cuh"
#include "weighted_x.cuh"

namespace encstdc {

// Calls load(), which overwrites arrays in shared memory, and waits for its copies.
template <typename F> __device__ void reload(F load) {
  sync_block();
  load();
  commit_copies();
  await_copies<0>();
  sync_block();
}
template <class B> __device__ void reload_x(const B& b, int tile, int chunk) {
  if (B::kSingleChunk || b.p.chunks == 1) return;
  reload([&] { b.load_x(tile, chunk, 0), b.load_mean(chunk); });
}
template <class B> __device__ void reload_codewords(const B& b, int chunk, int group) {
  if (!B::kSingleChunk) reload([&] { b.load_codewords(chunk, group); });
}

// Replaces a chunk of x by its gradient, 32 channels of each warp at a time, and writes
// it to device memory.
template <class B>
__device__ void grad_of_x(const B& b, typename B::XTile x, int tile, int chunk) {
#pragma unroll 1
  for (int first = 0; first < b.warp_channels; first += 32) {
    GradX grad_x = {};
    for (int group = 0; group < b.p.groups; ++group) {
      reload_codewords(b, chunk, group);
      auto v = b.neg_twice_grad_distance();
      multiply_rows(b, b.grad_operands(), b.assignment(), group, first, grad_x);
      multiply_rows(b, b.centred_codewords(0), v, group, first, grad_x);
    }
    sync_warp();  // all lanes have read these channels of x
    replace_x(b, grad_x, x, first);
  }
  write_grad_x(b, x, tile, chunk);
}

// Computes one tile. x holds its only chunk, or has room for one.
template <class B>
__device__ void walk_tile(const B& b, int tile, typename B::XTile x,
                          typename B::WeightedXSum& sum, bool first_tile) {
  for (int chunk = 0; chunk < b.p.chunks; ++chunk) {
    reload_x(b, tile, chunk);
    for (int group = 0; group < b.p.groups; ++group) {
      reload_codewords(b, chunk, group);
      multiply_codewords(b, x, chunk, group);
      if constexpr (B::kBackward) multiply_grad(b, x, chunk, group);
    }
  }
  // No barrier before assign: a thread reads the products that it added up itself.
  int features = b.p.N - tile * kBlockFeatures;
  if constexpr (B::kBackward) {
    assign_backward(b, features);
  } else {
    assign_forward(b, features);
  }
  sync_block();
  add_sums(b);
  for (int chunk = 0; chunk < b.p.chunks; ++chunk) {
    reload_x(b, tile, chunk);
    for (int group = 0; group < b.p.groups; ++group) {
      add_weighted_x(b, x, sum, chunk, group, first_tile);
    }
    if constexpr (B::kBackward) grad_of_x(b, x, tile, chunk);
  }
}

// Writes the block's sums of a segment that have length K_pad.
template <class B> __device__ void write_sums(const B& b) {
  const Problem& p = b.p;
  int64_t row = (int64_t(b.segment) * p.cluster_size + b.rank) * p.K_pad;
  for (int k = thread(); k < p.K_pad; k += kThreads) {
    p.assignment_partial_sum[row + k] = b.floats(p.at.assignment_sum)[k];
    if (B::kBackward) {
      p.grad_logits_partial_sum[row + k] = b.floats(p.at.grad_logits_sum)[k];
      p.grad_logits_x_sq_partial_sum[row + k] = b.floats(p.at.grad_logits_x_sq_sum)[k];
    }
  }
}

// Computes tiles first ... last - 1 of an image, which may be none. Meanwhile the next
// tile is copied if there are two stages, otherwise loaded into the cache.
template <class B> __device__ void walk_segment(const B& b, int first, int last) {
  bool ahead = B::kSingleChunk || b.p.chunks == 1;  // else walk_tile loads the chunks
  b.load_constants();
  if (B::kSingleChunk) b.load_codewords(0, 0);
  b.load_mean(0);
  if (ahead && first < last) b.load_x(first, 0, 0);
  commit_copies();
  typename B::WeightedXSum sum = {};
  for (int tile = first; tile < last; ++tile) {
    bool more = tile + 1 < last;
    int stage = b.p.stages == 2 ? (tile - first) & 1 : 0;
    if (b.p.stages == 2) {
      if (more) b.load_x(tile + 1, 0, 1 - stage);
      commit_copies();
      await_copies<1>();
    } else {
      if (more && ahead && b.p.x_in_pieces) b.prefetch_x(tile + 1);
      await_copies<0>();
    }
    sync_block();
    walk_tile(b, tile, b.x_tile(stage), sum, tile == first);
    sync_block();
    if (b.p.stages == 1 && ahead && more) {
      b.load_x(tile + 1, 0, 0);
      commit_copies();
    }
  }
  await_copies<0>();  // of the codewords, if there was no tile
  sync_block();       // all threads have read the codewords, which the sums overwrite
  write_sums(b);
  if (B::kSingleChunk) write_weighted_x(b, sum);
}

// Computes the tiles of the block's cluster, one segment after the other. The blocks of
// the cluster divide the tiles of a segment evenly.
template <class B>
__global__ void __launch_bounds__(kThreads, 1)
    walk_kernel(const __grid_constant__ Problem p) {
  B b(p);
  int64_t tiles = int64_t(p.B) * p.tiles;
  int64_t next = tiles * b.cluster_id / p.clusters;
  int64_t end = tiles * (b.cluster_id + 1) / p.clusters;
  while (next < end) {
    b.image = int(next / p.tiles), b.segment = b.cluster_id + b.image;
    int first = int(next - int64_t(b.image) * p.tiles);
    int64_t rest = end - next;
    int count = rest < p.tiles - first ? int(rest) : p.tiles - first;
    sync_block();  // all threads have finished the segment before
    walk_segment(b, first + int(int64_t(count) * b.rank / p.cluster_size),
                 first + int(int64_t(count) * (b.rank + 1) / p.cluster_size));
    next += count;
  }
}

}  // namespace encstdc
