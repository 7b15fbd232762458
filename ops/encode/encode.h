// The interface of the Encoding kernels, without torch and CUDA headers.
#pragma once
#include <cstdint>

namespace encstdc {

enum class Type { kFloat32, kFloat16, kBFloat16 };  // of x and its gradient

struct Device {
  int multiprocessors, shared_bytes;
};  // shared_bytes: of a block

struct Shape {
  Type type;
  int64_t B, D, N, K;
};

// Device memory, with strides in elements.
struct FeatureView {
  void* data;  // (B, D, N)
  int64_t batch_stride, channel_stride, feature_stride;
};

// Device memory. All but x and its gradient are contiguous.
struct Arguments {
  FeatureView x, grad_x;   // (B, D, N); grad_x is written by the backward pass
  const float* codewords;  // (K, D)
  const float* scale;      // (K)
  const float* grad;       // (B, K, D) G, of the encodings; nullptr: the forward pass
  float* encodings;        // (B, K, D), written by the forward pass
  float* grad_codewords;   // (K, D), written by the backward pass
  float* grad_scale;       // (K), written by the backward pass
};

// Division of a launch's work into blocks; see ops/README.md.
struct Plan {
  int block_channels;       // channels in shared memory at once; 0: not supported
  int stages;               // tiles of x in shared memory; 2: one is copied ahead
  int blocks;               // of the grid
  int cluster_size;         // blocks that add up their sums in shared memory
  int64_t shared_bytes;     // of a block
  int64_t workspace_bytes;  // of device memory beside arguments and results
};

Plan make_plan(const Shape& shape, const Device& device, bool backward);

// Launches a pass on a cudaStream_t. `workspace` is 256-byte aligned. Returns nullptr,
// or the error as text.
const char* run(const Shape& shape, const Plan& plan, const Arguments& arguments,
                void* workspace, void* stream);

}  // namespace encstdc
