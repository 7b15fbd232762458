// The small kernels before walk_kernel, which prepare operands, and after it, which add
// up the partial sums of the segments, always in the same order.
#pragma once
#include "../common/device.cuh"
#include "problem.h"

namespace encstdc {

constexpr int kRowThreads = 128;
constexpr int kFinishBackwardThreads = 512;  // more, because there are only K blocks
static_assert(kRowThreads % 32 == 0 && kFinishBackwardThreads % 32 == 0);  // warps

// Shared memory of prepare_kernel and of finish_backward_kernel.
struct PrepareShared {
  float warp_sums[kRowThreads / 32];
};
struct Segments {
  int first, last;
};  // both inclusive
struct FinishBackwardShared {
  Segments segments[kFinishBackwardThreads];  // of an image each, like the sums
  float assignment_sum[kFinishBackwardThreads], grad_logits_sum[kFinishBackwardThreads];
  float warp_sums[kFinishBackwardThreads / 32];
};

// Returns the sum over a block, in every thread.
template <int WARPS>
__device__ float sum_over_block(float value, float (&warp_sums)[WARPS]) {
  for (int mask = 16; mask; mask /= 2) value += shuffle_xor(value, mask);
  if (thread() % 32 == 0) warp_sums[thread() / 32] = value;
  sync_block();
  float sum = 0;
  for (int i = 0; i < WARPS; ++i) sum += warp_sums[i];
  sync_block();
  return sum;
}

__device__ inline float mean_codeword(const Problem& p, int d) {
  float sum = 0;
  for (int k = 0; k < p.K; ++k) sum += p.codewords[k * int64_t(p.D) + d];
  return sum / p.K;
}

// Writes mean, centred_codewords and codeword_sq (grid y = 0), grad_operands and
// grad_dot_codeword (y = 1 + image). Padding is 0. Grid (K_pad, 1) or (K_pad, 1 + B).
template <class Product>
__global__ void __launch_bounds__(kRowThreads) prepare_kernel(const Problem p) {
  using Operand = typename Product::Operand;
  int k = block_x(), image = block_y() - 1;
  int64_t matrix = int64_t(p.K_pad) * p.D_pad, row = int64_t(k) * p.D_pad;
  float sum = 0;  // of |c_k|^2 or G_k . c_k
  for (int d = thread(); d < p.D_pad; d += kRowThreads) {
    bool exists = k < p.K && d < p.D;
    float mean = Product::kCentred && d < p.D ? mean_codeword(p, d) : 0;
    float code = exists ? p.codewords[k * int64_t(p.D) + d] - mean : 0;
    if (image < 0) {
      auto centred = static_cast<Operand*>(p.centred_codewords);
      auto rounded = from_float<Operand>(code);
      centred[row + d] = rounded;
      if (Product::kCodewordTerms == 2) {
        centred[matrix + row + d] = from_float<Operand>(code - to_float(rounded));
      }
      if (k == 0) p.mean[d] = mean;
      sum += code * code;
    } else {
      int64_t place = (int64_t(image) * p.K + k) * p.D + d;
      auto rounded = from_float<Operand>(exists ? p.grad[place] : 0);
      static_cast<Operand*>(p.grad_operands)[image * matrix + row + d] = rounded;
      sum += to_float(rounded) * code;
    }
  }
  sum =
      sum_over_block(sum, reinterpret_cast<PrepareShared*>(shared_memory())->warp_sums);
  if (thread()) return;
  if (image < 0) {
    p.codeword_sq[k] = sum;
  } else {
    p.grad_dot_codeword[int64_t(image) * p.K_pad + k] = sum;
  }
}

// Returns the segments of an image.
__device__ inline Segments segments_of(const Problem& p, int image) {
  int64_t tiles = int64_t(p.B) * p.tiles, first = int64_t(image) * p.tiles;
  auto cluster_of = [&](int64_t tile) { return ((tile + 1) * p.clusters - 1) / tiles; };
  return {int(cluster_of(first)) + image, int(cluster_of(first + p.tiles - 1)) + image};
}

// Returns the sum of a column of (segments, rows, columns) over some segments and their
// rows, in order. `column` points to its first element.
__device__ inline float sum_over(Segments segments, const float* column, int rows,
                                 int64_t columns) {
  float sum = 0;
  for (int64_t segment = segments.first; segment <= segments.last; ++segment) {
    for (int row = 0; row < rows; ++row) {
      sum += column[(segment * rows + row) * columns];
    }
  }
  return sum;
}

// Writes E_k = sum_i A_ik x_i - (sum_i A_ik) c_k. Grid (K, B).
static __global__ void __launch_bounds__(kRowThreads) finish_kernel(const Problem p) {
  int k = block_x(), image = block_y();
  int64_t matrix = int64_t(p.K_pad) * p.D_pad, row = int64_t(k) * p.D_pad;
  Segments segments = segments_of(p, image);
  float assignment_sum =
      sum_over(segments, p.assignment_partial_sum + k, p.cluster_size, p.K_pad);
  for (int d = thread(); d < p.D; d += kRowThreads) {
    float code = p.codewords[k * int64_t(p.D) + d] - p.mean[d];
    int64_t place = (int64_t(image) * p.K + k) * p.D + d;
    p.encodings[place] =
        sum_over(segments, p.weighted_x_partial_sum + row + d, 1, matrix) -
        assignment_sum * code;
  }
}

// Writes the gradients of a codeword and of its scale, summed over images in order:
//
//     dC_k = -(sum_i A_ik) G_k - 2 s_k (sum_i dl_ik x_i - (sum_i dl_ik) c_k)
//     ds_k = sum_i dl_ik |x_i|^2 + |c_k|^2 sum_i dl_ik - 2 c_k . sum_i dl_ik x_i
//
// Here c_k is centred and G_k is not rounded. Sums of kFinishBackwardThreads images are
// in shared memory at once. Grid (K).
static __global__ void __launch_bounds__(kFinishBackwardThreads)
    finish_backward_kernel(const Problem p) {
  auto& [segments, assignment_sum, grad_logits_sum, warp_sums] =
      *reinterpret_cast<FinishBackwardShared*>(shared_memory());
  int k = block_x();
  int64_t matrix = int64_t(p.K_pad) * p.D_pad, row = int64_t(k) * p.D_pad;
  float twice_scale = 2 * p.scale[k], grad_scale = 0;
  for (int first = 0; first < p.B; first += kFinishBackwardThreads) {
    int i = thread(), last = first + kFinishBackwardThreads;
    if (first + i < p.B) {
      Segments own = segments[i] = segments_of(p, first + i);
      auto sum = [&](const float* partial_sum) {
        return sum_over(own, partial_sum + k, p.cluster_size, p.K_pad);
      };
      assignment_sum[i] = sum(p.assignment_partial_sum);
      grad_logits_sum[i] = sum(p.grad_logits_partial_sum);
      grad_scale +=
          sum(p.grad_logits_x_sq_partial_sum) + p.codeword_sq[k] * grad_logits_sum[i];
    }
    sync_block();
    for (int d = thread(); d < p.D; d += kFinishBackwardThreads) {
      int64_t place = k * int64_t(p.D) + d;
      float code = p.codewords[place] - p.mean[d];
      float grad_code = first ? p.grad_codewords[place] : 0;
      for (int image = first; image < p.B && image < last; ++image) {
        float grad_logits_x_sum = sum_over(
            segments[image - first], p.weighted_x_partial_sum + row + d, 1, matrix);
        float grad = p.grad[(int64_t(image) * p.K + k) * p.D + d];
        grad_code -=
            assignment_sum[image - first] * grad +
            twice_scale * (grad_logits_x_sum - grad_logits_sum[image - first] * code);
        grad_scale -= 2 * code * grad_logits_x_sum;
      }
      p.grad_codewords[place] = grad_code;
    }
    sync_block();
  }
  grad_scale = sum_over_block(grad_scale, warp_sums);
  if (thread() == 0) p.grad_scale[k] = grad_scale;
}

}  // namespace encstdc
