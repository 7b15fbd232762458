// Sums over features of w_ik x_i: w is A in the forward pass, dl in the backward pass.
#pragma once
#include "block.cuh"

namespace encstdc {

// Adds a group's rows of w (K_pad, kBlockFeatures) times x^T (kBlockFeatures, this
// warp's channels) to sum.
template <class B>
__device__ void multiply_weights(const B& b, const typename B::OperandMap& w, int group,
                                 typename B::XTile x, typename B::WeightedXSum& sum) {
  using Product = typename B::Product;
  constexpr bool kDepthInRows = !B::kChannelsAreRows;  // the depth index is the feature
  int row = group * kBlockCodewords;
#pragma unroll 1
  for (int n = 0; n < kBlockFeatures; n += Product::kDepth) {
    auto top = Product::template left<false, kDepthInRows>(w, row, n);
    auto bottom = Product::template left<false, kDepthInRows>(w, row + 16, n);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      if (8 * j >= b.warp_channels) break;
      typename Product::template Right<kDepthInRows> right[2];
      Product::template right<false>(right, x, n, b.first_channel + 8 * j, b.mean());
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        Product::multiply(sum[0][j + i], top, right[i]);
        Product::multiply(sum[1][j + i], bottom, right[i]);
      }
    }
  }
}

// Calls f(value, place) for every value of this lane, where place is its element of a
// matrix of kBlockCodewords rows. `matrix` points to this warp's first channel.
template <class B, typename F>
__device__ void for_each(const B& b, typename B::WeightedXSum& sum, float* matrix,
                         int row_stride, F f) {
  matrix += b.g * row_stride + 2 * b.t;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (8 * j >= b.warp_channels) break;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        int k = 16 * i + c / 2 * 8;
        f(sum[i][j][c], matrix[k * row_stride + 8 * j + c % 2]);
      }
    }
  }
}

// A group and this warp's channels of a chunk in the segment's partial sums:
// (kBlockCodewords, warp_channels), row stride D_pad.
template <class B> __device__ float* partial_sum_of(const B& b, int chunk, int group) {
  int64_t row = int64_t(b.segment) * b.p.K_pad + group * kBlockCodewords;
  return b.p.weighted_x_partial_sum + row * b.p.D_pad + chunk * b.p.block_channels +
         b.first_channel;
}

// Adds a tile. The sum of a single chunk stays in registers for a segment; the sums of
// several are in device memory, where the first tile of a segment sets them.
template <class B>
__device__ void add_weighted_x(const B& b, typename B::XTile x,
                               typename B::WeightedXSum& sum, int chunk, int group,
                               bool first_tile) {
  auto w = B::kBackward ? b.grad_logits() : b.assignment();
  if constexpr (B::kSingleChunk) {
    multiply_weights(b, w, group, x, sum);
  } else {
    typename B::WeightedXSum tile_sum = {};
    multiply_weights(b, w, group, x, tile_sum);
    for_each(b, tile_sum, partial_sum_of(b, chunk, group), b.p.D_pad,
             [first_tile](float& value, float& place) {
               place = first_tile ? value : place + value;
             });
  }
}

// Writes the sum at the end of a segment if D fits in one chunk. In a cluster, each
// block adds the sums of all blocks, in order of rank, for an equal range of the
// elements.
template <class B>
__device__ void write_weighted_x(const B& b, typename B::WeightedXSum& sum) {
  const Problem& p = b.p;
  auto set = [](float& value, float& place) { place = value; };
  if (p.cluster_size == 1) {
    return for_each(b, sum, partial_sum_of(b, 0, 0), p.D_pad, set);
  }
  float* own = b.floats(p.at.centred_codewords);  // (kBlockCodewords, block_channels)
  for_each(b, sum, own + b.first_channel, p.block_channels, set);
  sync_cluster();
  int matrix = kBlockCodewords * p.block_channels, count = matrix / p.cluster_size;
  int first = b.rank * count;
  for (int i = first + thread(); i < first + count; i += kThreads) {
    float all = 0;
    for (int peer = 0; peer < p.cluster_size; ++peer) all += in_peer(own, peer)[i];
    p.weighted_x_partial_sum[int64_t(b.segment) * matrix + i] = all;
  }
  sync_cluster();  // no block continues while others read its sum
}

}  // namespace encstdc
