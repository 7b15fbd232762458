// Before and after the walk over the tiles: operands of the products, and the sums
// of what the teams found. Small kernels, with a block for each codeword.
#pragma once

#include "device.cuh"
#include "problem.h"

namespace encstdc {

constexpr int kRowThreads = 128;
constexpr int kLastThreads = 512;  // of finish_backward_kernel, which has few blocks

// The sum over the threads of a block, in every thread; `shares` holds THREADS.
template <int THREADS>
__device__ float sum_of_block(float value, float* shares) {
  for (int lanes = 16; lanes; lanes /= 2) value += shuffle_xor(value, lanes);
  if (thread() % 32 == 0) shares[thread() / 32] = value;
  sync_block();
  float sum = 0;
  for (int i = 0; i < THREADS / 32; ++i) sum += shares[i];
  sync_block();
  return sum;
}

__device__ inline float mean_of_codes(const Problem& p, int d) {
  float sum = 0;
  for (int k = 0; k < p.codes; ++k) sum += p.codewords[k * int64_t(p.channels) + d];
  return sum / p.codes;
}

// Operands of the products, padded with zeros: a block has a codeword, or (y
// above 0) the gradient of an image's encoding of it.
template <class Core>
__global__ void __launch_bounds__(kRowThreads) prepare_kernel(const Problem p) {
  using Operand = typename Core::Operand;
  int k = block_x(), image = block_y() - 1;
  int64_t matrix = int64_t(p.padded_codes) * p.padded_channels;
  int64_t row = int64_t(k) * p.padded_channels;
  float sum = 0;
  for (int d = thread(); d < p.padded_channels; d += kRowThreads) {
    bool there = k < p.codes && d < p.channels;
    float mean = Core::kCentred && d < p.channels ? mean_of_codes(p, d) : 0;
    float code = there ? p.codewords[k * int64_t(p.channels) + d] - mean : 0;
    if (image < 0) {
      auto centred = reinterpret_cast<Operand*>(p.centred);
      auto rounded = from_float<Operand>(code);
      centred[row + d] = rounded;
      if (Core::kCodeParts == 2) {
        centred[matrix + row + d] = from_float<Operand>(code - to_float(rounded));
      }
      if (k == 0) p.mean[d] = mean;
      sum += code * code;
    } else {
      int64_t place = (int64_t(image) * p.codes + k) * p.channels + d;
      auto rounded = from_float<Operand>(there ? p.grad[place] : 0);
      reinterpret_cast<Operand*>(p.grads)[image * matrix + row + d] = rounded;
      sum += to_float(rounded) * code;
    }
  }
  sum = sum_of_block<kRowThreads>(
      sum, reinterpret_cast<float*>(shared_memory()));
  if (thread()) return;
  if (image < 0) {
    p.norms[k] = sum;
  } else {
    p.offsets[int64_t(image) * p.padded_codes + k] = sum;
  }
}

// The team that has a tile of all images.
__device__ inline int team_of(const Problem& p, int64_t tile) {
  int64_t tiles = int64_t(p.batch) * p.tiles;
  return int(((tile + 1) * p.teams - 1) / tiles);
}

// f(part) for the parts of an image, in their order.
template <typename F>
__device__ void each_part(const Problem& p, int image, F f) {
  int64_t first = int64_t(image) * p.tiles;
  int last = team_of(p, first + p.tiles - 1);
  for (int team = team_of(p, first); team <= last; ++team) f(team + image);
}

__device__ inline float sum_of_rows(const Problem& p, const float* rows,
                                    int image, int k) {
  float sum = 0;
  each_part(p, image, [&](int part) {
    for (int rank = 0; rank < p.cluster; ++rank) {
      sum += rows[(int64_t(part) * p.cluster + rank) * p.padded_codes + k];
    }
  });
  return sum;
}
__device__ inline float sum_of_partial(const Problem& p, int image, int k,
                                       int d) {
  float sum = 0;
  each_part(p, image, [&](int part) {
    int64_t row = int64_t(part) * p.padded_codes + k;
    sum += p.partial[row * p.padded_channels + d];
  });
  return sum;
}

// Encodings: sum_i A_ik x_i - (sum_i A_ik) c_k. A block has one of an image.
template <class Core>
__global__ void __launch_bounds__(kRowThreads) finish_kernel(const Problem p) {
  int k = block_x(), image = block_y();
  float mass = sum_of_rows(p, p.mass, image, k);
  for (int d = thread(); d < p.channels; d += kRowThreads) {
    float code = p.codewords[k * int64_t(p.channels) + d] - p.mean[d];
    int64_t place = (int64_t(image) * p.codes + k) * p.channels + d;
    p.encodings[place] = sum_of_partial(p, image, k, d) - mass * code;
  }
}

// Gradients of a codeword and of its scale, summed over the images in order. The
// sums over the parts of as many images as there are threads are kept at once.
template <class Core>
__global__ void __launch_bounds__(kLastThreads)
    finish_backward_kernel(const Problem p) {
  float* masses = reinterpret_cast<float*>(shared_memory());
  float* pulls = masses + kLastThreads;
  int k = block_x();
  float slope = 2 * p.scale[k], grad_scale = 0;
  for (int first = 0; first < p.batch; first += kLastThreads) {
    int own = first + thread(), last = first + kLastThreads;
    if (own < p.batch) {
      masses[thread()] = sum_of_rows(p, p.mass, own, k);
      pulls[thread()] = sum_of_rows(p, p.pull, own, k);
      grad_scale += sum_of_rows(p, p.spread, own, k) +
                    p.norms[k] * pulls[thread()];
    }
    sync_block();
    for (int d = thread(); d < p.channels; d += kLastThreads) {
      int64_t place = k * int64_t(p.channels) + d;
      float code = p.codewords[place] - p.mean[d];
      float grad_code = first ? p.grad_codewords[place] : 0;
      for (int image = first; image < p.batch && image < last; ++image) {
        float pulled = sum_of_partial(p, image, k, d);
        float grad = p.grad[(int64_t(image) * p.codes + k) * p.channels + d];
        grad_code -= masses[image - first] * grad +
                     slope * (pulled - pulls[image - first] * code);
        grad_scale -= 2 * code * pulled;
      }
      p.grad_codewords[place] = grad_code;
    }
    sync_block();
  }
  grad_scale = sum_of_block<kLastThreads>(grad_scale, masses);
  if (thread() == 0) p.grad_scale[k] = grad_scale;
}

}  // namespace encstdc
