// Matrix products of a warp over tiles in shared memory, by tensor cores.
//
// A product type has fragments of operands, each spread over the lanes of a warp, Left
// (16 x kDepth) and Right (kDepth x 8). multiply(sum, left, right) adds their 16 x 8
// product to sum. The depth is the axis that is summed over. DEPTH_IN_ROWS: the depth
// index is the row index of the tile that a fragment is loaded from, otherwise its
// column index.
#pragma once
#include "tiles.cuh"

namespace encstdc {

// float32 and float16 features: 3xTF32. An operand is a high part, cut to tf32, plus a
// low part. The product of two low parts is left out, an error of 2^-20. The mean
// codeword is subtracted from features and codewords.
template <typename S> struct Tf32Product {
  using Scalar = S;       // of features
  using Operand = float;  // of codewords, gradients and assignments
  static constexpr int kDepth = 8, kCodewordTerms = 1;
  static constexpr bool kCentred = true;

  // NEIGHBOURS is the right operand's DEPTH_IN_ROWS: both operands of a product are in
  // the same order of the depth, which their types ensure.
  template <bool NEIGHBOURS> struct Left {
    float values[4];
  };
  template <bool NEIGHBOURS> struct Right {
    float values[2];
  };

  // Returns the depth index of element i of lane t. Left and Right may have any order,
  // if it is the same. With NEIGHBOURS, lanes read different banks if the depth index
  // is the row index of x.
  template <bool NEIGHBOURS> __device__ static int depth_of(int t, int i) {
    return NEIGHBOURS ? 2 * t + i : t + 4 * i;
  }

  // Loads rows `row` ... + 15.
  template <bool DEPTH_IN_ROWS, bool NEIGHBOURS, typename T>
  __device__ static Left<NEIGHBOURS> left(const T& tile, int row, int depth) {
    int lane = thread() % 32, g = lane / 4, t = lane % 4;
    Left<NEIGHBOURS> out;
    for (int i = 0; i < 4; ++i) {
      int m = 8 * (i % 2), k = depth_of<NEIGHBOURS>(t, i / 2);
      out.values[i] = DEPTH_IN_ROWS ? *tile.at(depth, k, row + m + g)
                                    : *tile.at(row + m, g, depth + k);
    }
    return out;
  }

  // Loads the fragments of columns `column` ... + 7 and + 8 ... + 15. Subtracts mean
  // (channels) unless it is nullptr; the channel is the depth or the column.
  template <bool DEPTH_IS_CHANNEL, bool DEPTH_IN_ROWS, typename T>
  __device__ static void right(Right<DEPTH_IN_ROWS> (&out)[2], const T& tile, int depth,
                               int column, const float* mean) {
    int lane = thread() % 32, g = lane / 4, t = lane % 4;
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < 2; ++i) {
        int k = depth_of<DEPTH_IN_ROWS>(t, i), n = column + 8 * j;
        float value = to_float(DEPTH_IN_ROWS ? *tile.at(depth, k, n + g)
                                             : *tile.at(n, g, depth + k));
        if (mean) value -= mean[DEPTH_IS_CHANNEL ? depth + k : n + g];
        out[j].values[i] = value;
      }
    }
  }

  // The sum of the squares of this lane's elements, which are in column g.
  template <bool NEIGHBOURS>
  __device__ static float square(const Right<NEIGHBOURS>& right) {
    return right.values[0] * right.values[0] + right.values[1] * right.values[1];
  }

  template <int COUNT>
  __device__ static void split(const float (&values)[COUNT], uint32_t (&high)[COUNT],
                               uint32_t (&low)[COUNT]) {
    for (int i = 0; i < COUNT; ++i) {
      high[i] = as_bits(values[i]) & 0xffffe000u;  // 10 of 23 bits of the mantissa
      low[i] = as_bits(values[i] - as_float(high[i]));
    }
  }
  template <bool NEIGHBOURS>
  __device__ static void multiply(float (&sum)[4], const Left<NEIGHBOURS>& left,
                                  const Right<NEIGHBOURS>& right) {
    if (!kTensorCores) return multiply_float32(sum, left.values, right.values);
    uint32_t left_high[4], left_low[4], right_high[2], right_low[2];
    split(left.values, left_high, left_low);
    split(right.values, right_high, right_low);
    multiply_tf32(sum, left_low, right_high);
    multiply_tf32(sum, left_high, right_low);
    multiply_tf32(sum, left_high, right_high);
  }
};

// bfloat16 features, which are exact operands. Where distances need them, codewords are
// the sum of two terms, an error of 2^-17. Gradients and assignments are rounded, and
// every sum over assignments adds the rounded ones. The functions are Tf32Product's.
struct BFloat16Product {
  using Scalar = BFloat16;
  using Operand = BFloat16;
  static constexpr int kDepth = 16, kCodewordTerms = 2;
  static constexpr bool kCentred = false;

  template <bool NEIGHBOURS> struct Left {
    uint32_t pairs[4];
  };
  template <bool NEIGHBOURS> struct Right {
    uint32_t pairs[2];
  };

  // Loads 8 x 8 matrices at (row, column), (+ 8, + 0), (+ 0, + 8), (+ 8, + 8) of a
  // tile, or with SWAP the second and third in each other's place.
  template <bool TRANSPOSE, bool SWAP, typename T>
  __device__ static void load(uint32_t (&out)[4], const T& tile, int row, int column) {
    int lane = thread() % 32, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    load_matrices<TRANSPOSE>(out, tile.at(row, lane % 8 + (SWAP ? third : second),
                                          column + (SWAP ? second : third)));
  }

  template <bool DEPTH_IN_ROWS, bool NEIGHBOURS, typename T>
  __device__ static Left<NEIGHBOURS> left(const T& tile, int row, int depth) {
    Left<NEIGHBOURS> out;
    if (DEPTH_IN_ROWS)
      load<true, true>(out.pairs, tile, depth, row);
    else
      load<false, false>(out.pairs, tile, row, depth);
    return out;
  }

  template <bool, bool DEPTH_IN_ROWS, typename T>
  __device__ static void right(Right<DEPTH_IN_ROWS> (&out)[2], const T& tile, int depth,
                               int column, const float*) {
    uint32_t pairs[4];
    if (DEPTH_IN_ROWS)
      load<true, false>(pairs, tile, depth, column);
    else
      load<false, true>(pairs, tile, column, depth);
    out[0] = {{pairs[0], pairs[1]}};
    out[1] = {{pairs[2], pairs[3]}};
  }

  template <bool NEIGHBOURS>
  __device__ static float square(const Right<NEIGHBOURS>& right) {
    float sum = 0;
    for (uint32_t pair : right.pairs) {
      float even = as_float(pair << 16), odd = as_float(pair & 0xffff0000u);
      sum = sum + even * even;  // each statement is one fused operation
      sum = sum + odd * odd;
    }
    return sum;
  }

  template <bool NEIGHBOURS>
  __device__ static void multiply(float (&sum)[4], const Left<NEIGHBOURS>& left,
                                  const Right<NEIGHBOURS>& right) {
    multiply_bf16(sum, left.pairs, right.pairs);
  }
};

}  // namespace encstdc
