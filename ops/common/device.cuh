// Wrappers of GPU instructions and launches. nvcc compiles the definitions below. Other
// compilers include emulated_device.h, which defines the same names for a processor, so
// that tests run the kernels without a GPU.
#pragma once
#include <cstdint>
#include <type_traits>

namespace encstdc {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

struct LaunchConfig {
  int blocks_x, blocks_y;  // of the grid; clusters are along x
  int threads;             // of a block
  int cluster_size;        // blocks of a cluster; 1: no clusters
  int shared_bytes;        // of a block
  void* stream;            // cudaStream_t
};

}  // namespace encstdc

#ifndef __CUDACC__
#include "emulated_device.h"
#else

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace encstdc {

__device__ inline uint32_t as_bits(float value) { return __float_as_uint(value); }
__device__ inline float as_float(uint32_t bits) { return __uint_as_float(bits); }

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Float16 value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ inline float to_float(BFloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}
template <typename T> __device__ T from_float(float value) {
  if constexpr (std::is_same_v<T, Float16>) {
    return {__half_as_ushort(__float2half_rn(value))};
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else {
    return value;
  }
}

__device__ inline int thread() { return threadIdx.x; }
__device__ inline int block_x() { return blockIdx.x; }
__device__ inline int block_y() { return blockIdx.y; }
__device__ inline void sync_block() { __syncthreads(); }
__device__ inline void sync_warp() { __syncwarp(); }
// Returns the value held by lane (lane ^ mask).
__device__ inline float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// Returns the dynamic shared memory of the block, 16-byte aligned.
__device__ inline char* shared_memory() {
  extern __shared__ uint4 encstdc_shared[];
  return reinterpret_cast<char*>(encstdc_shared);
}
// Plans have clusters only for code of architecture 9.0 or later (see active_blocks):
// in other code these two are never called.
__device__ inline void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#endif
}
// Returns where `shared` is in the shared memory of block `rank` of the cluster.
__device__ inline const float* in_peer(float* shared, int rank) {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
#else
  return shared;
#endif
}

// Writes 16 bytes: copies `bytes` of them, and 0 for the others. Both pointers are
// 16-byte aligned. The bytes can be read after await_copies and a barrier.
__device__ inline void copy_async(void* shared, const void* global, int bytes) {
#if __CUDA_ARCH__ >= 800
  uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to),
               "l"(global), "r"(bytes)
               : "memory");
#else
  for (int i = 0; i < 8; ++i) {
    auto from = static_cast<const uint16_t*>(global) + i;
    static_cast<uint16_t*>(shared)[i] = 2 * i < bytes ? *from : uint16_t(0);
  }
#endif
}
// Ends a group of copies of this thread.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
// Waits until at most PENDING groups of this thread are under way.
template <int PENDING> __device__ inline void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
#endif
}
// Loads the line of an address into the second-level cache.
__device__ inline void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global));
}

// Tensor cores. Lane l is written (g, t) = (l / 4, l % 4). A lane holds these
// elements of a 16 x 8 sum: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).

// Loads four 8 x 8 matrices of 16-bit elements from shared memory. Lanes 8i ... 8i + 7
// give the rows of matrix i, 16-byte aligned. out[i] is (g, 2t), (g, 2t + 1) of matrix
// i or, with TRANSPOSE, of its transpose.
template <bool TRANSPOSE>
__device__ inline void load_matrices(uint32_t (&out)[4], const void* row) {
  uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (TRANSPOSE) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from)
                 : "memory");
  }
}

// Compute capability 7.5 has no such instruction for tf32 and bfloat16.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTensorCores = false;
#else
constexpr bool kTensorCores = true;
#endif

// Multiplies by shuffles. Not inlined: there are too few registers for the copies.
__device__ __noinline__ inline float4 multiply_by_lanes(float4 sum, float4 left,
                                                        float2 right) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    float even_row = k < 4 ? left.x : left.z, odd_row = k < 4 ? left.y : left.w;
    float value = k < 4 ? right.x : right.y;
    float top = __shfl_sync(0xffffffffu, even_row, 4 * g + k % 4);
    float bottom = __shfl_sync(0xffffffffu, odd_row, 4 * g + k % 4);
    float even = __shfl_sync(0xffffffffu, value, 8 * t + k % 4);
    float odd = __shfl_sync(0xffffffffu, value, 8 * t + 4 + k % 4);
    sum.x += top * even, sum.y += top * odd;
    sum.z += bottom * even, sum.w += bottom * odd;
  }
  return sum;
}

// multiply_tf32 on floats that are not cut, without tensor cores.
__device__ inline void multiply_float32(float (&sum)[4], const float (&left)[4],
                                        const float (&right)[2]) {
  float4 out =
      multiply_by_lanes({sum[0], sum[1], sum[2], sum[3]},
                        {left[0], left[1], left[2], left[3]}, {right[0], right[1]});
  sum[0] = out.x, sum[1] = out.y, sum[2] = out.z, sum[3] = out.w;
}

// sum += left (16 x 8) right (8 x 8). The hardware reads 10 mantissa bits of each one.
// left: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); right: (t, g), (t + 4, g).
__device__ inline void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4],
                                     const uint32_t (&right)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
        "r"(right[1]));
#endif
}

// sum += left (16 x 16) right (16 x 8) in bfloat16, two elements to a register. left:
// (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); right: (2t, g), (2t + 8, g).
__device__ inline void multiply_bf16(float (&sum)[4], const uint32_t (&left)[4],
                                     const uint32_t (&right)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
        "r"(right[1]));
#else
  for (int odd = 0; odd < 2; ++odd) {  // even and odd depths are a product each
    auto at = [odd](uint32_t pair) {
      return as_float(odd ? pair & 0xffff0000u : pair << 16);
    };
    multiply_float32(sum, {at(left[0]), at(left[1]), at(left[2]), at(left[3])},
                     {at(right[0]), at(right[1])});
  }
#endif
}

// Returns the launch as CUDA takes it. It points to `attribute`.
template <typename... Parameters>
cudaLaunchConfig_t cuda_config(void (*kernel)(Parameters...),
                               const LaunchConfig& config,
                               cudaLaunchAttribute& attribute) {
  if (config.shared_bytes > 48 * 1024) {  // CUDA's limit without this attribute
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                         cudaFuncAttributeMaxDynamicSharedMemorySize,
                         config.shared_bytes);
  }
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = config.cluster_size;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t out = {};
  out.gridDim = dim3(config.blocks_x, config.blocks_y);
  out.blockDim = dim3(config.threads);
  out.dynamicSmemBytes = config.shared_bytes;
  out.stream = static_cast<cudaStream_t>(config.stream);
  out.attrs = &attribute;
  out.numAttrs = config.cluster_size > 1 ? 1 : 0;
  return out;
}

// Returns nullptr, or the error as text.
template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), const LaunchConfig& config,
                   Arguments... arguments) {
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t out = cuda_config(kernel, config, attribute);
  cudaError_t status = cudaLaunchKernelEx(&out, kernel, Parameters(arguments)...);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // clears it, as the caller reports it
  return cudaGetErrorString(status);
}

// Returns the number of blocks that the device runs at once in such clusters; 0: none.
// ptxVersion is __CUDA_ARCH__ / 10 of the kernel. It may be less than the device's
// capability: code built for 8.0+PTX has no clusters, even if the device has.
template <typename... Parameters>
int active_blocks(void (*kernel)(Parameters...), const LaunchConfig& config) {
  cudaFuncAttributes code = {};
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t out = cuda_config(kernel, config, attribute);
  int clusters = 0;
  auto status = cudaFuncGetAttributes(&code, kernel);
  if (status == cudaSuccess && code.ptxVersion >= 90) {
    status = cudaOccupancyMaxActiveClusters(&clusters, kernel, &out);
  }
  if (status != cudaSuccess) cudaGetLastError();  // clears it
  return status == cudaSuccess ? clusters * config.cluster_size : 0;
}

}  // namespace encstdc
#endif  // __CUDACC__
