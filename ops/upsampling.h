// What the kernels of the cross entropy are given, and where bilinear upsampling
// takes an output from, as torch.nn.functional.interpolate has it.
#pragma once

#include <cmath>

#include "cross_entropy.h"

#ifdef __CUDACC__
#define ENCSTDC_BOTH __host__ __device__
#else
#define ENCSTDC_BOTH
#endif

namespace encstdc {

constexpr int kColumns = 128;      // of labels in a tile, each a thread's
constexpr int kSumStride = kColumns + 1;  // lanes of 32 channels hit 32 banks
constexpr int kRows = 8;           // most rows of labels in a strip
constexpr int kWindowFloats = 32;  // in front of shared memory
constexpr int kChannels = 8;       // that a thread of the last kernel adds at once

// One axis. Its outputs are in cells: cell k has those between inputs k and
// k + 1. Cell -1 has those before the first input, the last cell those after the
// last one; there both neighbours are the same input.
struct Axis {
  int inputs, outputs;
  float scale, half;  // half is 0 where corners are aligned
  float ratio;        // about 1 / scale
};

// One rounding on every compiler.
ENCSTDC_BOTH inline float source_of(const Axis& axis, int output) {
  return fmaf(axis.scale, float(output) + axis.half, -axis.half);
}
ENCSTDC_BOTH inline int cell_of(const Axis& axis, int output) {
  int cell = int(floorf(source_of(axis, output)));
  return cell < axis.inputs - 1 ? cell : axis.inputs - 1;
}
ENCSTDC_BOTH inline int input_before(int cell) { return cell < 0 ? 0 : cell; }
ENCSTDC_BOTH inline int input_after(const Axis& axis, int cell) {
  return cell < 0 ? 0 : cell + 1 < axis.inputs ? cell + 1 : cell;
}
// The weight of the input after; the one before has the rest.
ENCSTDC_BOTH inline float weight_after(const Axis& axis, int cell, int output) {
  if (input_before(cell) == input_after(axis, cell)) return 0;
  return source_of(axis, output) - float(cell);
}
// The first output of a cell or of those after it: a guess, put right.
ENCSTDC_BOTH inline int first_of(const Axis& axis, int cell) {
  if (cell < 0) return 0;
  if (cell >= axis.inputs) return axis.outputs;
  if (axis.scale == 0) return cell ? axis.outputs : 0;
  float guess = (float(cell) + axis.half) * axis.ratio - axis.half;
  int output = guess < axis.outputs ? int(guess) : axis.outputs;
  while (output > 0 && cell_of(axis, output - 1) >= cell) --output;
  while (output < axis.outputs && cell_of(axis, output) < cell) ++output;
  return output;
}

// What a launch is given.
struct LossProblem {
  const void *logits, *labels;
  const float* grad;
  float *losses, *normaliser, *partial;
  uint8_t* hits;
  void* grad_logits;
  int batch, channels;
  Axis rows, columns;
  int map;  // logits of a channel
  int strip, groups, tiles, width, chunk;  // LossPlan has them
  // Rows of a cell are a power of two of equal steps, in float too.
  bool even_steps;
  bool byte_labels;
  int64_t ignore_index;
};

// Where things lie in the shared memory of a block, in floats from its start.
struct LossLayout {
  // In front: a Window.
  int pairs;     // (chunk, n) pairs: rows before and after, of n columns of logits
  int peaks;     // (2, n): largest logit of a row and column
  int steep;     // one counter, of pairs far apart
  int shares;    // (slices, 2, n): of a slice of channels, or
  int sums;      // (chunk, kSumStride) pairs: a column's for the rows before, after
  int left, right;  // (chunk, n) pairs: of the columns after this, for it, the next
  int weights;   // (kColumns) of the input after
  int starts;    // (n + 1): first column whose input before is this
  int floats;    // of all
};

ENCSTDC_BOTH inline LossLayout lay_out_loss(int width, int chunk, bool backward) {
  LossLayout at = {};
  at.pairs = kWindowFloats;
  at.peaks = at.pairs + 2 * chunk * width;
  at.steep = at.peaks + 2 * width;
  at.shares = at.sums = at.steep + 2;  // sums are pairs
  int shares = 2 * width > kColumns ? 2 * width : kColumns;
  at.floats = at.shares + shares;
  if (!backward) return at;
  int sums = 2 * chunk * kSumStride;
  at.left = at.sums + (sums > shares ? sums : shares);
  at.right = at.left + 2 * chunk * width;
  at.weights = at.right + 2 * chunk * width;
  at.starts = at.weights + kColumns;
  at.floats = at.starts + width + 1;
  return at;
}

}  // namespace encstdc
