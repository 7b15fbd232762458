// The plain interface of the Encoding kernels: no torch, no CUDA header.
//
// Everything is a device pointer. Features x are (batch, channels, features)
// with strides in elements; codewords (K, D) and scale (K) are contiguous
// float, as is the gradient (B, K, D) of the encodings.
#pragma once

#include <cstdint>

namespace encstdc {

enum class Type { kFloat32, kFloat16, kBFloat16 };

struct Device {
  int processors;    // multiprocessors to keep busy
  int shared_bytes;  // shared memory that one block may ask for
  int capability;    // 90 for compute capability 9.0
};

struct Shape {
  Type type;
  int batch, channels, features, codes;  // B, D, N, K
};

struct View {
  void* data;
  int64_t batch, channel, feature;  // strides, in elements
};

// How a launch cuts its work up. See README.md.
struct Plan {
  int chunk;     // channels in shared memory at once; 0: the device has no room
  int stages;    // tiles of x in shared memory: 2 where the next is on its way
  int blocks;    // that share the tiles of all images
  int cluster;   // blocks of a team, which add up their sums on the chip
  int bytes;     // shared memory of a block
  int64_t workspace;  // bytes of device memory beside arguments and results
};

Plan plan(const Shape& shape, const Device& device, bool backward);

// Both return nullptr, or what went wrong. `workspace` is 256-byte aligned.
const char* forward(const Shape& shape, const Plan& plan, const View& x,
                    const float* codewords, const float* scale,
                    float* encodings, void* workspace, void* stream);
const char* backward(const Shape& shape, const Plan& plan, const View& x,
                     const float* codewords, const float* scale,
                     const float* grad, const View& grad_x,
                     float* grad_codewords, float* grad_scale, void* workspace,
                     void* stream);

}  // namespace encstdc
