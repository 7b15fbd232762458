// Matrices in shared memory, and copies between them and device memory.
#pragma once
#include "device.cuh"

namespace encstdc {

// A row-major matrix in shared memory. The 16-byte pieces of its rows are swizzled: the
// same column of eight neighbouring rows is in different banks. COLUMNS 0: known at run
// time only, and a multiple of 128 bytes.
template <typename T, int COLUMNS = 0> struct Tile {
  using Element = T;
  static constexpr int kPiece = 16 / sizeof(T);  // elements; 4 floats
  static constexpr bool kHalfLine = COLUMNS * sizeof(T) == 64;
  static_assert(kHalfLine || COLUMNS * sizeof(T) % 128 == 0,
                "the swizzle takes rows of 64 bytes or of complete 128-byte lines");

  T* data;  // (rows, columns()), 16-byte aligned
  int run_time_columns;

  __device__ int columns() const { return COLUMNS ? COLUMNS : run_time_columns; }
  // Row `first_row` + `row`. first_row is a multiple of 8, after which the swizzle
  // repeats, so that it only adds to the address.
  __device__ T* at(int first_row, int row, int column) const {
    int swizzle = kHalfLine ? (row >> 1) & 3 : row & 7;
    int piece = (column / kPiece) ^ swizzle;
    return data + row * columns() + piece * kPiece + column % kPiece +
           first_row * columns();
  }
  __device__ T* at(int row, int column) const { return at(0, row, column); }
};

// A part of a matrix in device memory. A tile may extend past its last row or column.
template <typename T> struct Part {
  T* data;                            // (rows, columns)
  int64_t row_stride, column_stride;  // in elements
  int rows, columns;                  // that exist; negative: none
};

constexpr int kLoadsInFlight = 16;  // of a thread that copies element by element

// Copies rows x 2^log2_columns elements to a tile, and zeros where the part ends. With
// `in_pieces`, for column stride 1, the copies are asynchronous.
template <int THREADS, class T, class E>
__device__ void fill(const T& tile, const Part<E>& from, int rows, int log2_columns,
                     bool in_pieces) {
  using Element = typename T::Element;
  int last_column = (1 << log2_columns) - 1;
  if (in_pieces) {
    // A thread copies one column, so that only its row changes.
    int index = thread() * T::kPiece, step = THREADS * T::kPiece >> log2_columns;
    int row = index >> log2_columns, column = index & last_column;
    int rest = from.columns - column;
    int count = rest < 0 ? 0 : rest < T::kPiece ? rest : T::kPiece;
    const Element* source = from.data + (count ? row * from.row_stride + column : 0);
    int64_t stride = count ? step * from.row_stride : 0;
    for (; row < rows; row += step, source += stride) {
      bool exists = row < from.rows;
      copy_async(tile.at(row, column), exists ? source : from.data,
                 exists ? count * int(sizeof(Element)) : 0);
    }
    return;
  }
  for (int i = thread(); i < rows << log2_columns; i += kLoadsInFlight * THREADS) {
    Element values[kLoadsInFlight];
#pragma unroll
    for (int j = 0; j < kLoadsInFlight; ++j) {
      int row = (i + j * THREADS) >> log2_columns;
      int column = (i + j * THREADS) & last_column;
      bool exists = row < from.rows && column < from.columns;
      int64_t place = row * from.row_stride + column * from.column_stride;
      values[j] = exists ? from.data[place] : Element{};
    }
#pragma unroll
    for (int j = 0; j < kLoadsInFlight; ++j) {
      int index = i + j * THREADS;
      *tile.at(index >> log2_columns, index & last_column) = values[j];
    }
  }
}

// Prefetches rows x 2^log2_columns elements into the L2 cache. The elements of a row
// are adjacent in memory.
template <int THREADS, class E>
__device__ void prefetch(const Part<E>& from, int rows, int log2_columns) {
  constexpr int kLine = 128 / sizeof(E);  // elements; 32 floats
  for (int i = thread() * kLine; i < rows << log2_columns; i += THREADS * kLine) {
    int row = i >> log2_columns, column = i & ((1 << log2_columns) - 1);
    if (row < from.rows && column < from.columns) {
      prefetch(from.data + row * from.row_stride + column);
    }
  }
}

// A warp copies rows x 2^log2_columns elements of a tile, from first_row and
// first_column on, to the same place in the part, as far as that exists.
template <class T, class E>
__device__ void write_by_warp(const T& tile, const Part<E>& to, int first_row,
                              int first_column, int rows, int log2_columns,
                              bool in_pieces) {
  int width = in_pieces ? T::kPiece : 1;
  for (int i = thread() % 32 * width; i < rows << log2_columns; i += 32 * width) {
    int row = first_row + (i >> log2_columns);
    int column = first_column + (i & ((1 << log2_columns) - 1));
    if (row >= to.rows || column >= to.columns) continue;
    E* target = to.data + row * to.row_stride + column * to.column_stride;
    const E* source = tile.at(row, column);
    if (in_pieces && column + width <= to.columns) {
      *reinterpret_cast<uint4*>(target) = *reinterpret_cast<const uint4*>(source);
    } else {
      for (int j = 0; j < width && column + j < to.columns; ++j) {
        target[j * to.column_stride] = source[j];
      }
    }
  }
}

}  // namespace encstdc
