// The few things that only a GPU has, under names that the kernels use.
//
// nvcc takes the definitions below. Another compiler takes emulated_device.h,
// which gives the same names on a processor, so that a test can run the kernels
// without a GPU.
#pragma once

#ifndef __CUDACC__
#include "emulated_device.h"
#else

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace encstdc {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Float16 value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ inline float to_float(BFloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}

template <typename T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline Float16 from_float<Float16>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}
template <>
__device__ inline BFloat16 from_float<BFloat16>(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}

__device__ inline uint32_t as_bits(float value) { return __float_as_uint(value); }
__device__ inline float as_float(uint32_t bits) { return __uint_as_float(bits); }

// --- Threads -----------------------------------------------------------------

__device__ inline int thread() { return threadIdx.x; }
__device__ inline int block_x() { return blockIdx.x; }
__device__ inline int block_y() { return blockIdx.y; }
__device__ inline void sync_block() { __syncthreads(); }
__device__ inline void sync_warp() { __syncwarp(); }
__device__ inline float shuffle_xor(float value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, value, lanes);
}

__device__ inline char* shared_memory() {
  extern __shared__ uint4 encstdc_shared[];
  return reinterpret_cast<char*>(encstdc_shared);
}

// Blocks of a cluster see each other's shared memory (compute capability 9.0).
__device__ inline void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#endif
}
__device__ inline const float* of_peer(float* shared, int rank) {
#if __CUDA_ARCH__ >= 900
  return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
#else
  return shared;
#endif
}

// --- Copies to shared memory -------------------------------------------------

// 16 bytes, of which `bytes` are read and the rest are zero.
__device__ inline void copy_async(void* shared, const void* global, int bytes) {
#if __CUDA_ARCH__ >= 800
  uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to),
               "l"(global), "r"(bytes)
               : "memory");
#else
  if (bytes == 16) {
    *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
    return;
  }
  for (int i = 0; i < 16; i += 2) {
    auto from = static_cast<const uint16_t*>(global) + i / 2;
    static_cast<uint16_t*>(shared)[i / 2] = i < bytes ? *from : uint16_t(0);
  }
#endif
}
// Have the second-level cache fetch the line of an address.
__device__ inline void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global));
}
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
// Wait until at most LATER of the committed groups are under way.
template <int LATER>
__device__ inline void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(LATER) : "memory");
#endif
}

// --- Tensor cores ------------------------------------------------------------
// Lane l is (g, t) = (l / 4, l % 4). A 16 x 8 result has rows g, g + 8 and
// columns 2t, 2t + 1 in a lane.

// 8 x 8 matrices of 16 bits; lanes 8i ... 8i + 7 give the rows of matrix i.
template <bool TRANSPOSE>
__device__ inline void load_matrices(uint32_t (&out)[4], const void* row) {
  uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (TRANSPOSE) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "r"(from)
        : "memory");
  } else {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "r"(from)
        : "memory");
  }
}

// Turing has no tensor cores for these types: its lanes swap their operands.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTensorCores = false;
#else
constexpr bool kTensorCores = true;
#endif

// A call, not inlined: there are no registers to spare for what it needs.
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

// What multiply_tf32 does, on whole floats and without tensor cores.
__device__ inline void multiply_float32(float (&sum)[4], const float (&left)[4],
                                        const float (&right)[2]) {
  float4 out = multiply_by_lanes(
      make_float4(sum[0], sum[1], sum[2], sum[3]),
      make_float4(left[0], left[1], left[2], left[3]),
      make_float2(right[0], right[1]));
  sum[0] = out.x, sum[1] = out.y, sum[2] = out.z, sum[3] = out.w;
}

// sum += left (16 x 8) right (8 x 8), operands cut to 10 bits of mantissa.
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

// sum += left (16 x 16) right (16 x 8) in bfloat16, two to a register.
// left: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); right: (2t, g),
// (2t + 8, g).
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
  // The even and the odd elements of a depth are a product of their own.
  for (int odd = 0; odd < 2; ++odd) {
    auto element = [odd](uint32_t pair) {
      return as_float(odd ? pair & 0xffff0000u : pair << 16);
    };
    float halves[4] = {element(left[0]), element(left[1]), element(left[2]),
                       element(left[3])};
    float others[2] = {element(right[0]), element(right[1])};
    multiply_float32(sum, halves, others);
  }
#endif
}

// --- Launches ----------------------------------------------------------------

struct Launch {
  int x, y, threads, cluster, bytes;
  void* stream;
};

// A launch as CUDA takes it; `attribute` must live as long.
template <typename... Parameters>
cudaLaunchConfig_t configure(void (*kernel)(Parameters...), const Launch& how,
                             cudaLaunchAttribute& attribute) {
  if (how.bytes > 48 * 1024) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                         cudaFuncAttributeMaxDynamicSharedMemorySize, how.bytes);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(how.x, how.y);
  config.blockDim = dim3(how.threads);
  config.dynamicSmemBytes = how.bytes;
  config.stream = static_cast<cudaStream_t>(how.stream);
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = how.cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = how.cluster > 1 ? 1 : 0;
  return config;
}

// nullptr, or what went wrong.
template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), const Launch& how,
                   Arguments... arguments) {
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t config = configure(kernel, how, attribute);
  cudaError_t status =
      cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // the caller has it
  return cudaGetErrorString(status);
}

// Blocks that run at once in clusters; 0 where there are none.
template <typename... Parameters>
int active_blocks(void (*kernel)(Parameters...), const Launch& how) {
  cudaLaunchAttribute attribute = {};
  cudaLaunchConfig_t config = configure(kernel, how, attribute);
  int clusters = 0;
  if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return clusters * how.cluster;
}

}  // namespace encstdc
#endif  // __CUDACC__
