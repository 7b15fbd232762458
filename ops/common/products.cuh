// Matrix products of a warp over tiles in shared memory, by tensor cores.
//
// A product type has fragments of operands, each spread over the lanes of a warp, Left
// (16 x kDepth) and Right (kDepth x 8). multiply(sum, left, right) adds their 16 x 8
// product to sum. The depth is the axis that is summed over. DEPTH_IN_ROWS: it is the
// row of the tile that a fragment is loaded from, else the column.
#pragma once
#include "tiles.cuh"

namespace encstdc {

// float32 and float16 features: 3xTF32. An operand is a high part, cut to tf32, plus a
// low part. The product of two low parts is left out, an error of 2^-20. The mean
// codeword is subtracted from features and codewords.
template <typename S>
struct Tf32Product {
  using Scalar = S;       // of features
  using Operand = float;  // of codewords, gradients and assignments
  static constexpr int kDepth = 8, kCodewordTerms = 1;
  static constexpr bool kCentred = true;

  struct Left { float values[4]; };
  struct Right { float values[2]; };

  // The depth of element i of lane t. Left and right may share any order: with
  // NEIGHBOURS the lanes' banks differ where the depth runs along the rows of x.
  template <bool NEIGHBOURS>
  __device__ static int depth_of(int t, int i) {
    return NEIGHBOURS ? 2 * t + i : t + 4 * i;
  }

  // Loads rows `row` ... + 15. NEIGHBOURS is the right operand's DEPTH_IN_ROWS.
  template <bool DEPTH_IN_ROWS, bool NEIGHBOURS, typename T>
  __device__ static Left left(const T& tile, int row, int depth) {
    int lane = thread() % 32, g = lane / 4, t = lane % 4;
    Left out;
    for (int i = 0; i < 4; ++i) {
      int m = 8 * (i % 2), k = depth_of<NEIGHBOURS>(t, i / 2);
      out.values[i] = DEPTH_IN_ROWS ? *tile.at(depth, k, row + m + g)
                                    : *tile.at(row + m, g, depth + k);
    }
    return out;
  }

  // Loads the fragments of columns `column` ... + 7 and + 8 ... + 15. Subtracts mean
  // (channels) unless it is nullptr; the channel is the depth or the column.
  template <bool DEPTH_IN_ROWS, bool DEPTH_IS_CHANNEL, typename T>
  __device__ static void right(Right (&out)[2], const T& tile, int depth, int column,
                               const float* mean) {
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
  __device__ static float square(const Right& right) {
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

// bfloat16 features, which are exact operands. Where distances need them, codewords are
// the sum of two terms, an error of 2^-17. Gradients and assignments are rounded, and
// every sum over assignments adds the rounded ones. The functions are Tf32Product's.
struct BFloat16Product {
  using Scalar = BFloat16;
  using Operand = BFloat16;
  static constexpr int kDepth = 16, kCodewordTerms = 2;
  static constexpr bool kCentred = false;

  struct Left { uint32_t pairs[4]; };
  struct Right { uint32_t pairs[2]; };

  template <bool DEPTH_IN_ROWS, bool, typename T>
  __device__ static Left left(const T& tile, int row, int depth) {
    int lane = thread() % 32;  // gives row lane % 8 of 8 x 8 matrix lane / 8
    int own = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    Left out;
    if (DEPTH_IN_ROWS) {
      load_matrices<true>(out.pairs, tile.at(depth, own + third, row + second));
    } else {
      load_matrices<false>(out.pairs, tile.at(row, own + second, depth + third));
    }
    return out;
  }

  template <bool DEPTH_IN_ROWS, bool, typename T>
  __device__ static void right(Right (&out)[2], const T& tile, int depth, int column,
                               const float*) {
    int lane = thread() % 32;
    int own = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    uint32_t pairs[4];
    if (DEPTH_IN_ROWS) {
      load_matrices<true>(pairs, tile.at(depth, own + second, column + third));
    } else {
      load_matrices<false>(pairs, tile.at(column, own + third, depth + second));
    }
    out[0] = {{pairs[0], pairs[1]}};
    out[1] = {{pairs[2], pairs[3]}};
  }

  __device__ static float square(const Right& right) {
    float sum = 0;
    for (uint32_t pair : right.pairs) {
      float even = as_float(pair << 16), odd = as_float(pair & 0xffff0000u);
      sum = sum + even * even;  // each statement is one fused operation
      sum = sum + odd * odd;
    }
    return sum;
  }

  __device__ static void multiply(float (&sum)[4], const Left& left,
                                  const Right& right) {
    multiply_bf16(sum, left.pairs, right.pairs);
  }
};

}  // namespace encstdc
