// The backward pass over one tile: gradients of assignments, logits and x.
//
//     v_ik = -2 s_k dl_ik, neg_twice_grad_distance
//     dx_i = sum_k A_ik G_k + sum_k v_ik c_k - (sum_k v_ik) x_i
#pragma once
#include "assignment.cuh"

namespace encstdc {

// Adds a chunk's channels to G_k . x_i of a group.
template <class B>
__device__ void multiply_grad(const B& b, typename B::XTile x, int chunk, int group) {
  typename B::CodewordTile rows[] = {b.grad_operands()};
  GroupProduct product = {};
  float unused[4] = {};
  multiply_channels(b, rows, x, product, unused);
  add_products(b, product, b.grad_assignment(), group, chunk == 0);
}

// Turns G_k . x_i of this thread's feature and codewords into dA_ik. Returns
// sum_k A_ik dA_ik.
template <class B> __device__ float dot_with_assignment(const B& b, float inverse) {
  float dot = 0;
  int n = b.own_feature();
  b.for_own_codewords(b.p.K, [&](int k) {
    float* grad_assignment = b.grad_assignment().at(k, n);
    *grad_assignment -= b.floats(b.p.at.grad_dot_codeword)[k];
    dot += *b.logits().at(k, n) * inverse * *grad_assignment;
  });
  return sum_lanes<4, 32>(dot);
}

// Writes A_ik, dl_ik, v_ik and sum_k v_ik of a tile, of which `features` exist, and 0
// for padded features and codewords.
template <class B> __device__ void assign_backward(const B& b, int features) {
  using Operand = typename B::Operand;
  int n = b.own_feature();
  float inverse = exponentials(b), dot = dot_with_assignment(b, inverse), v_sum = 0;
  b.for_own_codewords(b.p.K_pad, [&](int k) {
    bool exists = n < features && k < b.p.K;
    float assigned = exists ? *b.logits().at(k, n) * inverse : 0;
    float grad_assignment = *b.grad_assignment().at(k, n);
    float grad_logit = exists ? assigned * (grad_assignment - dot) : 0;
    auto v = from_float<Operand>(-2 * b.floats(b.p.at.scale)[k] * grad_logit);
    *b.grad_logits().at(k, n) = from_float<Operand>(grad_logit);
    *b.neg_twice_grad_distance().at(k, n) = v;
    v_sum += to_float(v);  // of rounded values
    *b.assignment().at(k, n) = from_float<Operand>(assigned);
  });
  v_sum = sum_lanes<4, 32>(v_sum);
  if (b.g == 0) b.floats(b.p.at.neg_twice_grad_distance_sum)[n] = v_sum;
}

// The gradient of 32 channels of a tile. [i][j] of a lane are the channels 16 i + g,
// 16 i + g + 8 and the features 8 j + 2 t, 8 j + 2 t + 1.
using GradX = float[2][4][4];

// Adds rows^T (32 channels from `first` of this warp's, kBlockCodewords) times a
// group's rows of map (K_pad, kBlockFeatures) to grad_x.
template <class B>
__device__ void multiply_rows(const B& b, const typename B::CodewordTile& rows,
                              const typename B::OperandMap& map, int group, int first,
                              GradX& grad_x) {
  using Product = typename B::Product;
#pragma unroll 1
  for (int k = 0; k < kBlockCodewords; k += Product::kDepth) {
    typename Product::template Right<true> right[2][2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      Product::template right<true>(right[j], map, group * kBlockCodewords + k, 16 * j,
                                    nullptr);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (first + 16 * i >= b.warp_channels) break;
      auto left =
          Product::template left<true, true>(rows, b.first_channel + first + 16 * i, k);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        Product::multiply(grad_x[i][j], left, right[j / 2][j % 2]);
      }
    }
  }
}

// Subtracts (sum_k v_ik) x_i from grad_x, and writes the result in the place of x.
template <class B>
__device__ void replace_x(const B& b, const GradX& grad_x, typename B::XTile x,
                          int first) {
  using Scalar = typename B::Scalar;
  struct alignas(2 * sizeof(Scalar)) Pair {
    Scalar first, second;
  };
  float factor[4][2];  // of x_i, for this lane's features
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    factor[j][0] = -b.floats(b.p.at.neg_twice_grad_distance_sum)[8 * j + 2 * b.t];
    factor[j][1] = -b.floats(b.p.at.neg_twice_grad_distance_sum)[8 * j + 2 * b.t + 1];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (first + 16 * i >= b.warp_channels) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int d = b.first_channel + first + 16 * i + 8 * half;  // this lane has d + g
      float mean = B::Product::kCentred ? b.mean()[d + b.g] : 0;
      auto complete = [&](Scalar value, int j, int c) {
        return from_float<Scalar>(grad_x[i][j][2 * half + c] +
                                  factor[j][c] * (to_float(value) - mean));
      };
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (B::kChannelsAreRows) {
          auto place = reinterpret_cast<Pair*>(x.at(d, b.g, 8 * j + 2 * b.t));
          Pair pair = *place;
          *place = {complete(pair.first, j, 0), complete(pair.second, j, 1)};
        } else {
          for (int c = 0; c < 2; ++c) {
            Scalar* place = x.at(8 * j, 2 * b.t + c, d + b.g);
            *place = complete(*place, j, c);
          }
        }
      }
    }
  }
}

// Writes this warp's channels of a tile, which hold the gradient of x, to grad_x.
template <class B>
__device__ void write_grad_x(const B& b, typename B::XTile x, int tile, int chunk) {
  sync_warp();  // all lanes have replaced x
  auto to = b.part_of(b.p.grad_x, tile, chunk);
  if (B::kChannelsAreRows) {
    write_by_warp(x, to, b.first_channel, 0, b.warp_channels, kLog2BlockFeatures,
                  b.p.grad_x_in_pieces);
  } else {
    write_by_warp(x, to, 0, b.first_channel, kBlockFeatures,
                  b.p.log2_block_channels - kLog2Warps, b.p.grad_x_in_pieces);
  }
}

}  // namespace encstdc
