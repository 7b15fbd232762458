// From a tile of x to the softmax over codewords, for both passes. A distance is
// |x_i|^2 - 2 c_k . x_i + |c_k|^2.
#pragma once
#include "block.cuh"

namespace encstdc {

// Products of a group's rows and the features of a tile. [i][j] of a lane are the
// codewords 16 i + g, 16 i + g + 8 and the features 8 j + 2 t, 8 j + 2 t + 1.
using GroupProduct = float[2][4][4];

// Multiplies rows (kBlockCodewords, chunk), the sum of TERMS tiles, by x (chunk,
// kBlockFeatures), over this warp's channels. Adds to x_sq[j] what this lane has of
// |x_i|^2, i = 8 j + g.
template <int TERMS, class B>
__device__ void multiply_channels(const B& b,
                                  const typename B::CodewordTile (&rows)[TERMS],
                                  typename B::XTile x, GroupProduct& product,
                                  float (&x_sq)[4]) {
  using Product = typename B::Product;
#pragma unroll 1
  for (int d = 0; d < b.warp_channels; d += Product::kDepth) {
    int channel = b.first_channel + d;
    typename Product::Left left[2][TERMS];
#pragma unroll
    for (int i = 0; i < 2 * TERMS; ++i) {
      left[i / TERMS][i % TERMS] = Product::template left<false, B::kChannelsAreRows>(
          rows[i % TERMS], i / TERMS * 16, channel);
    }
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      typename Product::Right right[2];
      Product::template right<B::kChannelsAreRows, true>(right, x, channel, 8 * j,
                                                         b.mean());
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        x_sq[j + i] += Product::square(right[i]);
#pragma unroll
        for (int term = TERMS - 1; term >= 0; --term) {
          Product::multiply(product[0][j + i], left[0][term], right[i]);
          Product::multiply(product[1][j + i], left[1][term], right[i]);
        }
      }
    }
  }
}

// Adds up the products of the eight warps, in a fixed order, into a group's rows of
// out (K_pad, kBlockFeatures). The first chunk sets these.
template <class B>
__device__ void add_products(const B& b, const GroupProduct& product,
                             const typename B::Map& out, int group, bool first_chunk) {
  auto buffers = b.map(b.p.at.partial_products);
  sync_block();  // the buffers are free
  // Warps 4 ... 7 write to a buffer each, then warps 0 ... 3 add to one each.
  for (int half = 1; half >= 0; --half) {
    if (b.warp / kPartialBuffers == half) {
      int first_row = b.warp % kPartialBuffers * kBlockCodewords;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            int row = first_row + 16 * i + 8 * (c / 2);
            float* sum = buffers.at(row, b.g, 8 * j + 2 * b.t) + c % 2;
            *sum = half ? product[i][j][c] : product[i][j][c] + *sum;
          }
        }
      }
    }
    sync_block();
  }
  int n = 4 * b.warp + b.t, row = group * kBlockCodewords;
  for (int k = b.g; k < kBlockCodewords; k += 8) {
    float sum = first_chunk ? 0 : *out.at(row + k, n);
    for (int buffer = 0; buffer < kPartialBuffers; ++buffer) {
      sum += *buffers.at(buffer * kBlockCodewords + k, n);
    }
    *out.at(row + k, n) = sum;
  }
}

// Adds a chunk's channels to c_k . x_i of a group and, with group 0, to |x_i|^2.
template <class B>
__device__ void multiply_codewords(const B& b, typename B::XTile x, int chunk,
                                   int group) {
  typename B::CodewordTile rows[B::Product::kCodewordTerms];
  for (int term = 0; term < B::Product::kCodewordTerms; ++term) {
    rows[term] = b.codewords(term);
  }
  GroupProduct product = {};
  float x_sq[4] = {};
  multiply_channels(b, rows, x, product, x_sq);
  float* total = b.floats(b.p.at.partial_x_sq) + b.warp * kBlockFeatures + b.g;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float sum = sum_lanes<1, 4>(x_sq[j]);
    if (b.t == 0 && group == 0) total[8 * j] = chunk ? total[8 * j] + sum : sum;
  }
  add_products(b, product, b.logits(), group, chunk == 0);
}

// Turns c_k . x_i of feature n into exp(l_ik - max_k l_ik), for the codewords g, g + 8,
// ... of this lane. Returns 1 / sum_k of the exponentials, and writes |x_i|^2.
template <class B> __device__ float exponentials(const B& b, int n) {
  const Problem& p = b.p;
  float x_sq = 0, highest = -INFINITY;
  for (int w = 0; w < kWarps; ++w) {
    x_sq += b.floats(p.at.partial_x_sq)[w * kBlockFeatures + n];
  }
  if (b.g == 0) b.floats(p.at.x_sq)[n] = x_sq;
  for (int k = b.g; k < p.K; k += 8) {
    float* logit = b.logits().at(k, n);
    *logit = b.floats(p.at.scale)[k] *
             (x_sq - 2 * *logit + b.floats(p.at.codeword_sq)[k]);
    highest = fmaxf(highest, *logit);
  }
  for (int mask = 4; mask < 32; mask *= 2) {
    highest = fmaxf(highest, shuffle_xor(highest, mask));
  }
  float sum = 0;
  for (int k = b.g; k < p.K; k += 8) {
    float* logit = b.logits().at(k, n);
    *logit = expf(*logit - highest);
    sum += *logit;
  }
  return 1 / sum_lanes<4, 32>(sum);
}

}  // namespace encstdc
