// The small kernels before the walk, which prepare operands, and after it, which add up
// the partial sums of the segments, always in the same order.
#pragma once
#include "../common/device.cuh"
#include "problem.h"

namespace encstdc {

constexpr int kRowThreads = 128;
constexpr int kFinishBackwardThreads = 512;  // more, because there are only K blocks

// The sum over a block, in every thread. warp_sums: (THREADS / 32) in shared memory.
template <int THREADS> __device__ float sum_over_block(float value, float* warp_sums) {
  for (int mask = 16; mask; mask /= 2) value += shuffle_xor(value, mask);
  if (thread() % 32 == 0) warp_sums[thread() / 32] = value;
  sync_block();
  float sum = 0;
  for (int i = 0; i < THREADS / 32; ++i) sum += warp_sums[i];
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
  sum = sum_over_block<kRowThreads>(sum, reinterpret_cast<float*>(shared_memory()));
  if (thread()) return;
  if (image < 0) {
    p.codeword_sq[k] = sum;
  } else {
    p.grad_dot_codeword[int64_t(image) * p.K_pad + k] = sum;
  }
}

// The cluster that has a tile; tiles are counted over all images.
__device__ inline int cluster_of(const Problem& p, int64_t tile) {
  int64_t tiles = int64_t(p.B) * p.tiles;
  return int(((tile + 1) * p.clusters - 1) / tiles);
}

// Sums a column of partial_sum (segments, rows, columns) over the segments of an image
// and their rows, in order.
__device__ inline float sum_over_image(const Problem& p, int image,
                                       const float* partial_sum, int rows,
                                       int64_t columns, int64_t column) {
  int64_t first = int64_t(image) * p.tiles;
  int last = cluster_of(p, first + p.tiles - 1);
  float sum = 0;
  for (int64_t id = cluster_of(p, first); id <= last; ++id) {
    for (int row = 0; row < rows; ++row) {
      sum += partial_sum[((id + image) * rows + row) * columns + column];
    }
  }
  return sum;
}
// sum_i A_ik, sum_i dl_ik or sum_i dl_ik |x_i|^2 of an image.
__device__ inline float sum_of(const Problem& p, int image, const float* partial_sum,
                               int k) {
  return sum_over_image(p, image, partial_sum, p.cluster_size, p.K_pad, k);
}
// sum_i A_ik x_id of an image in the forward pass, sum_i dl_ik x_id in the backward.
__device__ inline float weighted_x_sum(const Problem& p, int image, int k, int d) {
  int64_t columns = int64_t(p.K_pad) * p.D_pad, column = int64_t(k) * p.D_pad + d;
  return sum_over_image(p, image, p.weighted_x_partial_sum, 1, columns, column);
}

// E_k = sum_i A_ik x_i - (sum_i A_ik) c_k. Grid (K, B).
template <class Product>
__global__ void __launch_bounds__(kRowThreads) finish_kernel(const Problem p) {
  int k = block_x(), image = block_y();
  float assignment_sum = sum_of(p, image, p.assignment_partial_sum, k);
  for (int d = thread(); d < p.D; d += kRowThreads) {
    float code = p.codewords[k * int64_t(p.D) + d] - p.mean[d];
    int64_t place = (int64_t(image) * p.K + k) * p.D + d;
    p.encodings[place] = weighted_x_sum(p, image, k, d) - assignment_sum * code;
  }
}

// The gradients of a codeword and of its scale, summed over the images in order:
//
//     dC_k = -(sum_i A_ik) G_k - 2 s_k (sum_i dl_ik x_i - (sum_i dl_ik) c_k)
//     ds_k = sum_i dl_ik |x_i|^2 + |c_k|^2 sum_i dl_ik - 2 c_k . sum_i dl_ik x_i
//
// Sums of kFinishBackwardThreads images are in shared memory at once. Grid (K).
template <class Product>
__global__ void __launch_bounds__(kFinishBackwardThreads)
    finish_backward_kernel(const Problem p) {
  float* assignment_sum = reinterpret_cast<float*>(shared_memory());  // (images)
  float* grad_logits_sum = assignment_sum + kFinishBackwardThreads;   // (images)
  int k = block_x();
  float twice_scale = 2 * p.scale[k], grad_scale = 0;
  for (int first = 0; first < p.B; first += kFinishBackwardThreads) {
    int own = first + thread(), last = first + kFinishBackwardThreads;
    if (own < p.B) {
      assignment_sum[thread()] = sum_of(p, own, p.assignment_partial_sum, k);
      grad_logits_sum[thread()] = sum_of(p, own, p.grad_logits_partial_sum, k);
      grad_scale += sum_of(p, own, p.grad_logits_sq_partial_sum, k) +
                    p.codeword_sq[k] * grad_logits_sum[thread()];
    }
    sync_block();
    for (int d = thread(); d < p.D; d += kFinishBackwardThreads) {
      int64_t place = k * int64_t(p.D) + d;
      float code = p.codewords[place] - p.mean[d];
      float grad_code = first ? p.grad_codewords[place] : 0;
      for (int image = first; image < p.B && image < last; ++image) {
        float grad_logits_x_sum = weighted_x_sum(p, image, k, d);  // sum_i dl_ik x_id
        float grad = p.grad[(int64_t(image) * p.K + k) * p.D + d];
        grad_code -= assignment_sum[image - first] * grad +
                     twice_scale * (grad_logits_x_sum -
                                    grad_logits_sum[image - first] * code);
        grad_scale -= 2 * code * grad_logits_x_sum;
      }
      p.grad_codewords[place] = grad_code;
    }
    sync_block();
  }
  grad_scale = sum_over_block<kFinishBackwardThreads>(grad_scale, assignment_sum);
  if (thread() == 0) p.grad_scale[k] = grad_scale;
}

}  // namespace encstdc
