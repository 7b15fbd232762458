// Tiles in shared memory, and matrix products of a warp over them.
//
// A tile is a matrix whose 16-byte chunks are swizzled, so that eight rows of
// one column lie in different banks. A core multiplies with tensor cores: left
// (16 x depth) by right (depth x 16), where "along rows" says that the depth
// runs along the rows of the tile, else along its columns.
#pragma once

#include "device.cuh"

namespace encstdc {

// COLUMNS 0: known at run time only, and at least 128 bytes.
template <typename T, int COLUMNS = 0>
struct Tile {
  using Element = T;
  static constexpr int kChunk = 16 / sizeof(T);

  T* data;
  int run_time_columns;

  __device__ int columns() const { return COLUMNS ? COLUMNS : run_time_columns; }
  // Row `block` + `row`; block, a multiple of 8, has no part in the swizzle.
  __device__ T* at(int block, int row, int column) const {
    int turn = COLUMNS * int(sizeof(T)) == 64 ? (row >> 1) & 3 : row & 7;
    int chunk = (column / kChunk) ^ turn;
    return data + row * columns() + chunk * kChunk + column % kChunk +
           block * columns();
  }
  __device__ T* at(int row, int column) const { return at(0, row, column); }
};

// float32 and float16: 3xTF32. A factor is a high part, cut to tf32, and the
// rest; of the four products the one of two rests is left out, which leaves an
// error of 2^-20. Features and codewords are less the mean codeword.
template <typename S>
struct Tf32 {
  using Scalar = S;
  using Operand = float;  // of codewords, gradients and assignments
  static constexpr int kDepth = 8;
  static constexpr bool kCentred = true;

  struct Left {
    float values[4];
  };
  struct Right {
    float values[2];
  };
  struct Codes {
    Tile<float> tile;
  };
  static constexpr int kCodeParts = 1;

  __device__ static Codes codes_at(float* data, int chunk, int) {
    return {{data, chunk}};
  }

  // Where lane t's two elements lie in the depth. Neighbours where the depth
  // runs along the rows of x, so that the lanes' banks differ.
  template <bool NEIGHBOURS>
  __device__ static int depth_of(int t, int i) {
    return NEIGHBOURS ? 2 * t + i : t + 4 * i;
  }

  template <bool ALONG_ROWS, bool NEIGHBOURS, typename T>
  __device__ static Left left(const T& tile, int row, int depth) {
    int lane = thread() % 32, g = lane / 4, t = lane % 4;
    Left out;
    for (int i = 0; i < 4; ++i) {
      int m = 8 * (i % 2), k = depth_of<NEIGHBOURS>(t, i / 2);
      out.values[i] = ALONG_ROWS ? *tile.at(depth, k, row + m + g)
                                 : *tile.at(row + m, g, depth + k);
    }
    return out;
  }
  template <bool NEIGHBOURS>
  __device__ static Left codes(const Codes& codes, int row, int depth) {
    return left<false, NEIGHBOURS>(codes.tile, row, depth);
  }

  // Two neighbouring 8-column fragments. `mean` is subtracted: of the depth or
  // of the columns, whichever is the channel; nullptr for none.
  template <bool ALONG_ROWS, bool DEPTH_IS_CHANNEL, typename T>
  __device__ static void right(Right (&out)[2], const T& tile, int depth,
                               int column, const float* mean) {
    int lane = thread() % 32, g = lane / 4, t = lane % 4;
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < 2; ++i) {
        int k = depth_of<ALONG_ROWS>(t, i), n = column + 8 * j;
        float value = to_float(ALONG_ROWS ? *tile.at(depth, k, n + g)
                                          : *tile.at(n, g, depth + k));
        if (mean) value -= mean[DEPTH_IS_CHANNEL ? depth + k : n + g];
        out[j].values[i] = value;
      }
    }
  }

  __device__ static float square(const Right& right) {
    return right.values[0] * right.values[0] +
           right.values[1] * right.values[1];
  }

  template <int COUNT>
  __device__ static void split(const float (&values)[COUNT],
                               uint32_t (&high)[COUNT], uint32_t (&low)[COUNT]) {
    for (int i = 0; i < COUNT; ++i) {
      high[i] = as_bits(values[i]) & 0xffffe000u;
      low[i] = as_bits(values[i] - as_float(high[i]));
    }
  }
  __device__ static void multiply(float (&sum)[4], const Left& left,
                                  const Right& right) {
    if (!kTensorCores) return multiply_float32(sum, left.values, right.values);
    uint32_t left_high[4], left_low[4], right_high[2], right_low[2];
    split(left.values, left_high, left_low);
    split(right.values, right_high, right_low);
    multiply_tf32(sum, left_low, right_high);
    multiply_tf32(sum, left_high, right_low);
    multiply_tf32(sum, left_high, right_high);
  }
};

// bfloat16: features are exact, codewords two terms where distances need them
// (error 2^-17); gradients and assignments are rounded, and every sum over
// assignments is one over the rounded ones.
struct BFloat16Core {
  using Scalar = BFloat16;
  using Operand = BFloat16;
  static constexpr int kDepth = 16;
  static constexpr bool kCentred = false;

  struct Left {
    uint32_t pairs[4];
  };
  struct LeftOfTwo {
    Left high, low;
  };
  struct Right {
    uint32_t pairs[2];
  };
  struct Codes {
    Tile<BFloat16> tile, rest;
  };
  static constexpr int kCodeParts = 2;

  __device__ static Codes codes_at(BFloat16* data, int chunk, int rows) {
    return {{data, chunk}, {data + rows * chunk, chunk}};
  }

  template <bool ALONG_ROWS, bool NEIGHBOURS, typename T>
  __device__ static Left left(const T& tile, int row, int depth) {
    int lane = thread() % 32;
    int low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    Left out;
    if (ALONG_ROWS) {
      load_matrices<true>(out.pairs, tile.at(depth, low + third, row + second));
    } else {
      load_matrices<false>(out.pairs, tile.at(row, low + second, depth + third));
    }
    return out;
  }
  template <bool NEIGHBOURS>
  __device__ static LeftOfTwo codes(const Codes& codes, int row, int depth) {
    return {left<false, NEIGHBOURS>(codes.tile, row, depth),
            left<false, NEIGHBOURS>(codes.rest, row, depth)};
  }

  template <bool ALONG_ROWS, bool DEPTH_IS_CHANNEL, typename T>
  __device__ static void right(Right (&out)[2], const T& tile, int depth,
                               int column, const float*) {
    int lane = thread() % 32;
    int low = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    uint32_t pairs[4];
    if (ALONG_ROWS) {
      load_matrices<true>(pairs, tile.at(depth, low + second, column + third));
    } else {
      load_matrices<false>(pairs, tile.at(column, low + third, depth + second));
    }
    out[0] = {{pairs[0], pairs[1]}};
    out[1] = {{pairs[2], pairs[3]}};
  }

  __device__ static float square(const Right& right) {
    float sum = 0;
    for (uint32_t pair : right.pairs) {
      float even = as_float(pair << 16), odd = as_float(pair & 0xffff0000u);
      sum = sum + even * even;  // a fused operation each
      sum = sum + odd * odd;
    }
    return sum;
  }

  __device__ static void multiply(float (&sum)[4], const Left& left,
                                  const Right& right) {
    multiply_bf16(sum, left.pairs, right.pairs);
  }
  __device__ static void multiply(float (&sum)[4], const LeftOfTwo& left,
                                  const Right& right) {
    multiply(sum, left.low, right);
    multiply(sum, left.high, right);
  }
};

}  // namespace encstdc
