// Copies between device and shared memory: of parts of a matrix, with zeros where
// it ends, in 16-byte pieces where its strides allow that.
#pragma once

#include "cores.cuh"
#include "problem.h"

namespace encstdc {

// A part of a matrix in device memory: `rows` x `columns` of it exist.
template <typename T>
struct Part {
  T* data;
  int64_t row, column;  // strides; column is 1 where copied in pieces
  int rows, columns;
};

// Fill rows x 2^bits elements of a tile, with zeros where the part ends. In
// 16-byte pieces the copies are asynchronous.
template <class T, class E>
__device__ void fill(const T& tile, const Part<E>& from, int rows, int bits,
                     bool pieces) {
  using Element = typename T::Element;
  if (pieces) {
    // A thread keeps its column: only the row moves on.
    int place = thread() * T::kChunk, step = kThreads * T::kChunk >> bits;
    int row = place >> bits, column = place & ((1 << bits) - 1);
    int left = from.columns - column;
    int count = left < 0 ? 0 : left < T::kChunk ? left : T::kChunk;
    const Element* source = from.data + (count ? row * from.row + column : 0);
    int64_t stride = count ? step * from.row : 0;
    for (; row < rows; row += step, source += stride) {
      bool there = row < from.rows;
      copy_async(tile.at(row, column), there ? source : from.data,
                 there ? count * int(sizeof(Element)) : 0);
    }
    return;
  }
  constexpr int kAtOnce = 16;  // loads under way; a tile has whole such runs
  for (int i = thread(); i < rows << bits; i += kAtOnce * kThreads) {
    Element values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      int place = i + j * kThreads;
      int row = place >> bits, column = place & ((1 << bits) - 1);
      bool there = row < from.rows && column < from.columns;
      values[j] =
          there ? from.data[row * from.row + column * from.column] : Element{};
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      int place = i + j * kThreads;
      *tile.at(place >> bits, place & ((1 << bits) - 1)) = values[j];
    }
  }
}

// Have the cache fetch rows x 2^bits elements, which copies in pieces will take.
template <class E>
__device__ void fetch_ahead(const Part<E>& from, int rows, int bits) {
  constexpr int kLine = 128 / sizeof(E);
  for (int i = thread() * kLine; i < rows << bits; i += kThreads * kLine) {
    int row = i >> bits, column = i & ((1 << bits) - 1);
    if (row < from.rows && column < from.columns) {
      prefetch(from.data + row * from.row + column);
    }
  }
}

// A warp writes rows x 2^bits elements of a tile out, as far as the part goes.
template <class T, class E>
__device__ void write_out(const T& tile, const Part<E>& to, int first_row,
                          int first_column, int rows, int bits, bool pieces) {
  int wide = pieces ? T::kChunk : 1;
  for (int i = thread() % 32 * wide; i < rows << bits; i += 32 * wide) {
    int row = first_row + (i >> bits);
    int column = first_column + (i & ((1 << bits) - 1));
    if (row >= to.rows || column >= to.columns) continue;
    E* target = to.data + row * to.row + column * to.column;
    const E* source = tile.at(row, column);
    if (pieces && column + wide <= to.columns) {
      *reinterpret_cast<uint4*>(target) =
          *reinterpret_cast<const uint4*>(source);
    } else {
      for (int j = 0; j < wide && column + j < to.columns; ++j) {
        target[j * to.column] = source[j];
      }
    }
  }
}

// Channels from `channel` and features from `feature` of image `image`.
template <bool ROWS, typename Scalar>
__device__ Part<Scalar> part_of(const View& x, const Problem& p, int image,
                                int channel, int feature) {
  auto data = static_cast<Scalar*>(x.data) + image * x.batch +
              channel * x.channel + feature * x.feature;
  int channels = p.channels - channel, features = p.features - feature;
  if (ROWS) return {data, x.channel, x.feature, channels, features};
  return {data, x.feature, x.channel, features, channels};
}

}  // namespace encstdc
