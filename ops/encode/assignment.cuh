// Distances, softmax over codewords and sums of it over features, for a tile of x. A
// distance is |x_i|^2 - 2 c_k . x_i + |c_k|^2.
#pragma once
#include "block.cuh"

namespace encstdc {

// Products of a group's rows and the features of a tile. [i][j] of a lane are the
// codewords 16 i + g, 16 i + g + 8 and the features 8 j + 2 t, 8 j + 2 t + 1.
using GroupProduct = float[2][4][4];

// Multiplies rows (kBlockCodewords, chunk), the sum of TERMS tiles, by x (chunk,
// kBlockFeatures), over this warp's channels. Adds the squares of this lane's elements
// of x_i, i = 8 j + g, to x_sq[j].
template <int TERMS, class B>
__device__ void multiply_channels(const B& b,
                                  const typename B::CodewordTile (&rows)[TERMS],
                                  typename B::XTile x, GroupProduct& product,
                                  float (&x_sq)[4]) {
  using Product = typename B::Product;
#pragma unroll 1
  for (int d = 0; d < b.warp_channels; d += Product::kDepth) {
    int channel = b.first_channel + d;
    typename Product::template Left<B::kChannelsAreRows> left[2][TERMS];
#pragma unroll
    for (int i = 0; i < 2 * TERMS; ++i) {
      left[i / TERMS][i % TERMS] = Product::template left<false, B::kChannelsAreRows>(
          rows[i % TERMS], i / TERMS * 16, channel);
    }
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      typename Product::template Right<B::kChannelsAreRows> right[2];
      Product::template right<true>(right, x, channel, 8 * j, b.mean());
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
  int n = b.own_feature(), row = group * kBlockCodewords;
  b.for_own_codewords(kBlockCodewords, [&](int k) {
    float sum = first_chunk ? 0 : *out.at(row + k, n);
    for (int buffer = 0; buffer < kPartialBuffers; ++buffer) {
      sum += *buffers.at(buffer * kBlockCodewords + k, n);
    }
    *out.at(row + k, n) = sum;
  });
}

// Adds a chunk's channels to c_k . x_i of a group and, with group 0, to |x_i|^2.
template <class B>
__device__ void multiply_codewords(const B& b, typename B::XTile x, int chunk,
                                   int group) {
  typename B::CodewordTile rows[B::Product::kCodewordTerms];
  for (int term = 0; term < B::Product::kCodewordTerms; ++term) {
    rows[term] = b.centred_codewords(term);
  }
  GroupProduct product = {};
  float x_sq[4] = {};
  multiply_channels(b, rows, x, product, x_sq);
  float* warp_x_sq = b.floats(b.p.at.partial_x_sq) + b.warp * kBlockFeatures + b.g;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float sum = sum_lanes<1, 4>(x_sq[j]);
    if (b.t || group) continue;
    warp_x_sq[8 * j] = chunk ? warp_x_sq[8 * j] + sum : sum;
  }
  add_products(b, product, b.logits(), group, chunk == 0);
}

// Turns c_k . x_i of this thread's feature and codewords into exp(l_ik - max_k l_ik).
// Returns 1 / sum_k of the exponentials, and writes |x_i|^2.
template <class B> __device__ float exponentials(const B& b) {
  const Problem& p = b.p;
  int n = b.own_feature();
  float x_sq = 0, highest = -INFINITY;
  for (int w = 0; w < kWarps; ++w) {
    x_sq += b.floats(p.at.partial_x_sq)[w * kBlockFeatures + n];
  }
  if (b.g == 0) b.floats(p.at.x_sq)[n] = x_sq;
  b.for_own_codewords(p.K, [&](int k) {
    float* logit = b.logits().at(k, n);
    *logit =
        b.floats(p.at.scale)[k] * (x_sq - 2 * *logit + b.floats(p.at.codeword_sq)[k]);
    highest = fmaxf(highest, *logit);
  });
  for (int mask = 4; mask < 32; mask *= 2) {
    highest = fmaxf(highest, shuffle_xor(highest, mask));
  }
  float sum = 0;
  b.for_own_codewords(p.K, [&](int k) {
    float* logit = b.logits().at(k, n);
    *logit = expf(*logit - highest);
    sum += *logit;
  });
  return 1 / sum_lanes<4, 32>(sum);
}

// Adds what a tile contributes to sum_i A_ik and, in the backward pass, to sum_i dl_ik
// and sum_i dl_ik |x_i|^2. dl_ik is the gradient of the logit l_ik. Eight lanes compute
// the sums of one codeword.
template <class B> __device__ void add_sums(const B& b) {
  const SharedLayout& at = b.p.at;
  auto add = [&](int sums, const typename B::OperandMap& map, const float* factor) {
    for (int k = thread() / 8; k < b.p.K_pad; k += kThreads / 8) {
      float sum = 0;
      for (int n = thread() % 8; n < kBlockFeatures; n += 8) {
        sum += to_float(*map.at(k, n)) * (factor ? factor[n] : 1);
      }
      sum = sum_lanes<1, 8>(sum);
      if (thread() % 8 == 0) b.floats(sums)[k] += sum;
    }
  };
  add(at.assignment_sum, b.assignment(), nullptr);
  if (!B::kBackward) return;
  add(at.grad_logits_sum, b.grad_logits(), nullptr);
  add(at.grad_logits_x_sq_sum, b.grad_logits(), b.floats(at.x_sq));
}

}  // namespace encstdc
