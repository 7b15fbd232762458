// Cross entropy of bilinearly upsampled logits, and its gradient.
//
// A block has the labels of a tile of kColumns columns in a cell of rows: a thread
// has a column, and of it a strip of R rows between the same two rows of logits.
// All exponents are of 2. Logits come less the largest of their row and column of
// the map: upsampled they are z <= 0, and sums of 2^z need no running maximum.
#pragma once

#include "device.cuh"
#include "upsampling.h"

namespace encstdc {

constexpr float kLog2OfE = 1.44269504f, kLogOf2 = 0.693147181f;
// Sums below 2^-kDeep are redone; where a logit is 2^kDeep times that of the row
// after or before, as exponentials, ratios would leave the range of float. Both are
// rare.
constexpr float kDeep = 60;

struct alignas(8) Pair {
  float before, after;
};

// A class in a column, upsampled along it: z = before + weight * slope.
struct Line {
  float before, slope;
};

// What a block has.
struct Window {
  int64_t image;
  int cell, first, end;           // cell of rows; rows of labels
  int tile, left, right;          // columns of labels
  int first_input, inputs;        // columns of logits
  int row_before, row_after;      // rows of logits
  float middle;                   // weight of the row after, in row kRows / 2
  float down[kRows];              // and in all; the last one again beyond the end
};
static_assert(sizeof(Window) <= 4 * kWindowFloats, "its place in shared memory");

// What a thread has.
template <int R>
struct Strip {
  int column, count;          // rows that are there
  int before, after;          // inputs, counted from the window's first
  float right;                // weight of the one after
  float middle, down[R];      // the window's
};

__device__ inline void find_window(const LossProblem& p, Window& w) {
  int block = block_x();
  w.tile = block % p.tiles, block /= p.tiles;
  int group = block % p.groups;
  block /= p.groups;
  w.cell = block % (p.rows.inputs + 1) - 1;
  w.image = block / (p.rows.inputs + 1);
  int strip = p.strip;
  w.first = first_of(p.rows, w.cell) + group * strip;
  w.end = first_of(p.rows, w.cell + 1);
  w.end = w.end < w.first + strip ? w.end : w.first + strip;
  w.row_before = input_before(w.cell);
  w.row_after = input_after(p.rows, w.cell);
  w.left = w.tile * kColumns;
  w.right = w.left + kColumns < p.columns.outputs ? w.left + kColumns
                                                  : p.columns.outputs;
  w.first_input = input_before(cell_of(p.columns, w.left));
  w.inputs = input_after(p.columns, cell_of(p.columns, w.right - 1)) + 1 -
             w.first_input;
  w.middle = weight_after(p.rows, w.cell, w.first + strip / 2);
  for (int r = 0; r < strip; ++r) {
    int row = w.first + r < w.end ? w.first + r : w.end - 1;
    w.down[r] = weight_after(p.rows, w.cell, row);
  }
}
// One thread finds it: for few classes it would be a tenth of all instructions.
__device__ inline Window window_of(const LossProblem& p, float* shared) {
  auto& window = *reinterpret_cast<Window*>(shared);
  if (thread() == 0) find_window(p, window);
  sync_block();
  return window;
}

template <int R>
__device__ Strip<R> strip_of(const LossProblem& p, const Window& w) {
  Strip<R> s;
  s.column = w.left + thread() < w.right ? w.left + thread() : w.right - 1;
  s.count = w.end - w.first;
  int cell = cell_of(p.columns, s.column);
  s.before = input_before(cell) - w.first_input;
  s.after = input_after(p.columns, cell) - w.first_input;
  s.right = weight_after(p.columns, cell, s.column);
  s.middle = w.middle;
#pragma unroll
  for (int r = 0; r < R; ++r) s.down[r] = w.down[r];
  return s;
}

// --- Logits in shared memory -------------------------------------------------

// The logits of an image, whose places are ints.
template <class T>
__device__ const T* logits_of(const LossProblem& p, const Window& w) {
  return static_cast<const T*>(p.logits) + w.image * p.channels * p.map;
}
// Of a channel's row before or after, in the window's first column.
__device__ inline int place_of(const LossProblem& p, const Window& w, int channel,
                               bool after) {
  return channel * p.map + (after ? w.row_after : w.row_before) * p.columns.inputs +
         w.first_input;
}

// f(place, slice, slices): the threads of a block share places, and where there
// are more threads than places, slices of what is to be done for each.
template <typename F>
__device__ void share_places(int places, F f) {
  int width = places < kColumns ? places : kColumns, slices = kColumns / width;
  int slice = thread() / width;
  if (slice >= slices) return;
  for (int i = thread() % width; i < places; i += width) f(i, slice, slices);
}

// The largest logit of each place (after, input) of the window.
template <class T>
__device__ void find_peaks(const LossProblem& p, const Window& w, float* peaks,
                           float* shares) {
  int places = 2 * w.inputs;
  const T* logits = logits_of<T>(p, w);
  share_places(places, [&](int i, int slice, int slices) {
    bool after = i >= w.inputs;
    int place = place_of(p, w, slice, after) + (after ? i - w.inputs : i);
    float most = -INFINITY;
#pragma unroll 4
    for (int c = slice; c < p.channels; c += slices, place += slices * p.map) {
      most = fmaxf(most, to_float(logits[place]));
    }
    shares[slice * places + i] = most;
  });
  sync_block();
  share_places(places, [&](int i, int slice, int slices) {
    if (slice) return;
    float most = shares[i];
    for (int k = 1; k < slices; ++k) most = fmaxf(most, shares[k * places + i]);
    peaks[i] = most;
  });
  sync_block();
}

// Channels first ... first + count - 1 less the peaks, to (count, inputs) pairs;
// counts into `steep` where rows are far apart.
template <class T>
__device__ void load_pairs(const LossProblem& p, const Window& w,
                           const float* peaks, int first, int count,
                           Pair* pairs, uint32_t* steep) {
  const T* logits = logits_of<T>(p, w);
  share_places(w.inputs, [&](int i, int slice, int slices) {
    float peak_before = peaks[i], peak_after = peaks[w.inputs + i], steepest = 0;
    int before = place_of(p, w, first + slice, false) + i;
    int across = (w.row_after - w.row_before) * p.columns.inputs;
#pragma unroll 4
    for (int c = slice; c < count; c += slices, before += slices * p.map) {
      float top = kLog2OfE * (to_float(logits[before]) - peak_before);
      float bottom = kLog2OfE * (to_float(logits[before + across]) - peak_after);
      pairs[c * w.inputs + i] = {top, bottom};
      steepest = fmaxf(steepest, fabsf(bottom - top));
    }
    if (steepest >= kDeep) add_atomically(steep, 1);
  });
}

// --- Upsampling --------------------------------------------------------------
// In fused operations by name, so that a class gives the same bits wherever it is
// upsampled: the label's is compared with the largest of all.

__device__ inline float between(float before, float after, float weight) {
  return fmaf(weight, after, (1 - weight) * before);
}

template <int R>
__device__ Line line_of(const Pair* pairs, const Strip<R>& s) {
  Pair left = pairs[s.before], right = pairs[s.after];
  float before = between(left.before, right.before, s.right);
  return {before, between(left.after, right.after, s.right) - before};
}
// Of the peaks (2, inputs), which were taken off.
template <int R>
__device__ Line peak_of(const float* peaks, int inputs, const Strip<R>& s) {
  float before = between(peaks[s.before], peaks[s.after], s.right);
  peaks += inputs;
  return {before, between(peaks[s.before], peaks[s.after], s.right) - before};
}
__device__ inline float value_at(const Line& line, float down) {
  return fmaf(down, line.slope, line.before);
}

// 2^z in the rows of a strip. Where steps are even, three exponentials give the
// middle one and the ratio of neighbours.
template <int R, bool EVEN>
__device__ void powers_of(const Line& line, const Strip<R>& s, float step,
                          float (&powers)[R]) {
  if (EVEN) {
    float up = exp2_fast(step * line.slope), down = exp2_fast(-step * line.slope);
    powers[R / 2] = exp2_fast(value_at(line, s.middle));
#pragma unroll
    for (int r = R / 2 + 1; r < R; ++r) powers[r] = powers[r - 1] * up;
#pragma unroll
    for (int r = R / 2 - 1; r >= 0; --r) powers[r] = powers[r + 1] * down;
  } else {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      powers[r] = exp2_fast(value_at(line, s.down[r]));
    }
  }
}

__device__ inline int64_t pixel_of(const LossProblem& p, const Window& w,
                                   int column, int row) {
  int64_t line = w.image * p.rows.outputs + w.first + row;
  return line * p.columns.outputs + column;
}

// The class of a label; -1 where it is ignored, -2 where there is no such class.
__device__ inline int class_of(const LossProblem& p, int64_t label) {
  if (label == p.ignore_index) return -1;
  return uint64_t(label) < uint64_t(p.channels) ? int(label) : -2;
}
template <class L, int R>
__device__ void load_classes(const LossProblem& p, const Window& w,
                             const Strip<R>& s, int (&classes)[R]) {
  const L* labels = static_cast<const L*>(p.labels) + pixel_of(p, w, s.column, 0);
  L own[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    own[r] = labels[int64_t(r < s.count ? r : 0) * p.columns.outputs];
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    classes[r] = r < s.count ? class_of(p, own[r]) : -1;
  }
}
template <int R>
__device__ void load_classes(const LossProblem& p, const Window& w,
                             const Strip<R>& s, int (&classes)[R]) {
  if (p.byte_labels) {
    load_classes<uint8_t>(p, w, s, classes);
  } else {
    load_classes<int64_t>(p, w, s, classes);
  }
}

// --- Forward -----------------------------------------------------------------

// Of the rows of a strip.
template <int R>
struct Scores {
  float sum[R], most[R];      // of 2^z over the classes
  float label[R], power[R];   // z and 2^z of the label
  int classes[R];
};

template <int R, bool EVEN>
__device__ void add_scores(const Pair* pairs, int inputs, int first, int count,
                           const Strip<R>& s, float step, Scores<R>& scores) {
  float powers[R];
  for (int c = 0; c < count; ++c) {
    Line line = line_of(pairs + c * inputs, s);
    powers_of<R, EVEN>(line, s, step, powers);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      scores.sum[r] += powers[r];
      scores.most[r] = fmaxf(scores.most[r], powers[r]);
    }
  }
  Line line = {0, 0};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    int c = scores.classes[r] - first;
    if (c < 0 || c >= count) continue;
    // Most strips have one label.
    if (r == 0 || scores.classes[r] != scores.classes[r ? r - 1 : 0]) {
      line = line_of(pairs + c * inputs, s);
      powers_of<R, EVEN>(line, s, step, powers);
    }
    scores.label[r] = value_at(line, s.down[r]);
    scores.power[r] = powers[r];
  }
}

__device__ inline void write_result(const LossProblem& p, int64_t pixel, int label,
                                    float loss, float normaliser, bool hit) {
  if (loss < 0) loss = 0;  // it rounds to a little below
  p.losses[pixel] = label >= 0 ? loss : label == -1 ? 0 : NAN;
  // The largest of some values leaves NaN out.
  p.hits[pixel] = label >= 0 && hit && normaliser == normaliser;
  p.normaliser[pixel] = normaliser;
}

// The definition, for a row that classes far apart leave without precision.
template <class T, int R>
__device__ void redo(const LossProblem& p, const Window& w, const Strip<R>& s,
                     int row) {
  int64_t pixel = pixel_of(p, w, s.column, row);
  int label = class_of(p, p.byte_labels
                              ? static_cast<const uint8_t*>(p.labels)[pixel]
                              : static_cast<const int64_t*>(p.labels)[pixel]);
  float down = weight_after(p.rows, w.cell, w.first + row);
  auto upsampled = [&](int c) {
    const T* before = logits_of<T>(p, w) + place_of(p, w, c, false);
    const T* after = logits_of<T>(p, w) + place_of(p, w, c, true);
    float top = between(to_float(before[s.before]), to_float(before[s.after]),
                        s.right);
    float bottom = between(to_float(after[s.before]), to_float(after[s.after]),
                           s.right);
    return fmaf(down, bottom - top, top);
  };
  float most = -INFINITY, sum = 0;
  for (int c = 0; c < p.channels; ++c) most = fmaxf(most, upsampled(c));
  for (int c = 0; c < p.channels; ++c) {
    sum += exp2_fast(kLog2OfE * (upsampled(c) - most));
  }
  float above = kLogOf2 * log2_fast(sum), own = label < 0 ? 0 : upsampled(label);
  write_result(p, pixel, label, most - own + above, most + above, own >= most);
}

template <class T, int R>
__global__ void __launch_bounds__(kColumns) cross_entropy_kernel(const LossProblem p) {
  float* shared = reinterpret_cast<float*>(shared_memory());
  Window w = window_of(p, shared);
  if (w.first >= w.end) return;
  LossLayout at = lay_out_loss(p.width, p.chunk, false);
  auto pairs = reinterpret_cast<Pair*>(shared + at.pairs);
  auto steep = reinterpret_cast<uint32_t*>(shared + at.steep);
  float* peaks = shared + at.peaks;
  if (thread() == 0) *steep = 0;
  Strip<R> s = strip_of<R>(p, w);
  Scores<R> scores;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    scores.sum[r] = scores.most[r] = scores.label[r] = scores.power[r] = 0;
  }
  load_classes(p, w, s, scores.classes);
  find_peaks<T>(p, w, peaks, shared + at.shares);
  for (int first = 0; first < p.channels; first += p.chunk) {
    int count = p.channels - first < p.chunk ? p.channels - first : p.chunk;
    if (first) sync_block();
    load_pairs<T>(p, w, peaks, first, count, pairs, steep);
    sync_block();
    if (p.even_steps && *steep == 0) {
      add_scores<R, true>(pairs, w.inputs, first, count, s, p.rows.scale, scores);
    } else {
      add_scores<R, false>(pairs, w.inputs, first, count, s, 0, scores);
    }
  }
  if (w.left + thread() >= w.right) return;
  int again = 0;  // rows as bits
  int64_t pixel = pixel_of(p, w, s.column, 0);
  Line peak = peak_of(peaks, w.inputs, s);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (r >= s.count) continue;
    float above = log2_fast(scores.sum[r]);
    if (above <= -kDeep) again |= 1 << r;
    write_result(p, pixel + int64_t(r) * p.columns.outputs, scores.classes[r],
                 kLogOf2 * (above - scores.label[r]),
                 fmaf(kLogOf2, above, value_at(peak, s.down[r])),
                 scores.power[r] >= scores.most[r]);
  }
  for (int r = 0; again >> r; ++r) {
    if (again >> r & 1) redo<T>(p, w, s, r);
  }
}

// --- Backward ----------------------------------------------------------------

// What the rows of a strip give: the gradient of a class is the sum over the rows
// of 2^(z - excess) times `top` for the row of logits before, `bottom` after. The
// excess is zero, as top and bottom have it in them, unless it is far from zero.
template <int R>
struct Pulls {
  float top[R], bottom[R], excess[R];
  int classes[R];
};

template <int R>
__device__ Pulls<R> pulls_of(const LossProblem& p, const Window& w,
                             const Strip<R>& s, const float* peaks,
                             uint32_t* steep) {
  Pulls<R> pulls;
  load_classes(p, w, s, pulls.classes);
  float grads[R], normalisers[R];
  int64_t pixel = pixel_of(p, w, s.column, 0);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    int64_t own = pixel + int64_t(r < s.count ? r : 0) * p.columns.outputs;
    grads[r] = p.grad[own], normalisers[r] = p.normaliser[own];
  }
  bool near = true, there = w.left + thread() < w.right;
  Line peak = peak_of(peaks, w.inputs, s);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (!there) pulls.classes[r] = -1;
    pulls.excess[r] = kLog2OfE * (normalisers[r] - value_at(peak, s.down[r]));
    if (pulls.classes[r] == -1) grads[r] = pulls.excess[r] = 0;
    if (pulls.classes[r] == -2) grads[r] = NAN;
    near = near && fabsf(pulls.excess[r]) < kDeep;
  }
  if (!near) add_atomically(steep, 1);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float grad = grads[r];
    if (near) grad *= exp2_fast(-pulls.excess[r]), pulls.excess[r] = 0;
    pulls.top[r] = (1 - s.down[r]) * grad, pulls.bottom[r] = s.down[r] * grad;
  }
  return pulls;
}

// a_0 + a_1 x + ... of the rows after the middle, FORTH, or of those before it.
template <int R, bool FORTH>
__device__ float polynomial(const float (&rows)[R], float x) {
  float sum = rows[FORTH ? R - 1 : 0];
#pragma unroll
  for (int i = 1; i < R / 2; ++i) {
    sum = fmaf(sum, x, rows[FORTH ? R - 1 - i : i]);
  }
  return sum;
}

// The sums of a class over the strip, for the rows before and after.
template <int R, bool EVEN>
__device__ Pair pull_of(const Line& line, const Strip<R>& s, float step,
                        const Pulls<R>& pulls) {
  if (EVEN) {
    float up = exp2_fast(step * line.slope), down = exp2_fast(-step * line.slope);
    float power = exp2_fast(value_at(line, s.middle));
    auto sum = [&](const float (&rows)[R]) {
      return power * fmaf(polynomial<R, false>(rows, down), down,
                          polynomial<R, true>(rows, up));
    };
    return {sum(pulls.top), sum(pulls.bottom)};
  }
  Pair sums = {0, 0};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float power = exp2_fast(value_at(line, s.down[r]) - pulls.excess[r]);
    sums.before = fmaf(power, pulls.top[r], sums.before);
    sums.after = fmaf(power, pulls.bottom[r], sums.after);
  }
  return sums;
}

// Sums of a column for all channels of a chunk, and what its labels take off.
template <int R, bool EVEN>
__device__ void pull_columns(const LossProblem& p, const Window& w,
                             const Pair* pairs, int first, int count,
                             const Strip<R>& s, const Pulls<R>& pulls,
                             Pair* sums) {
  for (int c = 0; c < count; ++c) {
    Line line = line_of(pairs + c * w.inputs, s);
    sums[c * kSumStride + thread()] =
        pull_of<R, EVEN>(line, s, p.rows.scale, pulls);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    int c = pulls.classes[r] - first;
    if (c < 0 || c >= count) continue;
    float grad = p.grad[pixel_of(p, w, s.column, r)];
    Pair& sum = sums[c * kSumStride + thread()];
    sum.before -= (1 - s.down[r]) * grad, sum.after -= s.down[r] * grad;
  }
}

// For each column of logits, the columns of labels that it comes before.
template <int R>
__device__ void lay_out_columns(const LossProblem& p, const Window& w,
                                const Strip<R>& s, float* weights, int* starts) {
  int column = thread(), columns = w.right - w.left;
  if (column >= columns) return;
  weights[column] = s.right;
  int last = -1;
  if (column) {
    last = input_before(cell_of(p.columns, s.column - 1)) - w.first_input;
  }
  for (int i = last + 1; i <= s.before; ++i) starts[i] = column;
  if (column < columns - 1) return;
  for (int i = s.before + 1; i <= w.inputs; ++i) starts[i] = columns;
}

// Add up the columns after each column of logits, for it and for the next: left
// and right, (count, inputs) each.
__device__ inline void gather_columns(const Window& w, const Pair* sums, int count,
                                      const float* weights, const int* starts,
                                      Pair* left, Pair* right) {
  share_places(count, [&](int c, int slice, int slices) {
    for (int input = slice; input < w.inputs; input += slices) {
      Pair all = {0, 0}, next = {0, 0};
#pragma unroll 4
      for (int x = starts[input]; x < starts[input + 1]; ++x) {
        Pair own = sums[c * kSumStride + x];
        float weight = weights[x], rest = 1 - weight;
        all.before = fmaf(rest, own.before, all.before);
        all.after = fmaf(rest, own.after, all.after);
        next.before = fmaf(weight, own.before, next.before);
        next.after = fmaf(weight, own.after, next.after);
      }
      left[c * w.inputs + input] = all, right[c * w.inputs + input] = next;
    }
  });
}

// The sums of a block are (2, C, inputs) in the workspace: what its labels give to
// the row of logits before them, and to that after.
__device__ inline float* partial_of(const LossProblem& p, int64_t block,
                                    int inputs, bool after, int channel) {
  return p.partial + block * 2 * p.channels * p.width +
         (int64_t(after) * p.channels + channel) * inputs;
}

__device__ inline void write_partial(const LossProblem& p, const Window& w,
                                     int first, int count, const Pair* left,
                                     const Pair* right) {
  float* before = partial_of(p, block_x(), w.inputs, false, first);
  float* after = partial_of(p, block_x(), w.inputs, true, first);
  share_places(w.inputs, [&](int i, int slice, int slices) {
    for (int c = slice; c < count; c += slices) {
      int place = c * w.inputs + i;
      Pair sum = left[place], other = {0, 0};
      if (i) other = right[place - 1];
      before[place] = sum.before + other.before;
      after[place] = sum.after + other.after;
    }
  });
}

template <class T, int R>
__global__ void __launch_bounds__(kColumns)
    cross_entropy_backward_kernel(const LossProblem p) {
  float* shared = reinterpret_cast<float*>(shared_memory());
  Window w = window_of(p, shared);
  if (w.first >= w.end) return;
  LossLayout at = lay_out_loss(p.width, p.chunk, true);
  auto pairs = reinterpret_cast<Pair*>(shared + at.pairs);
  auto sums = reinterpret_cast<Pair*>(shared + at.sums);
  auto starts = reinterpret_cast<int*>(shared + at.starts);
  auto left = reinterpret_cast<Pair*>(shared + at.left);
  auto right = reinterpret_cast<Pair*>(shared + at.right);
  float* weights = shared + at.weights;
  Strip<R> s = strip_of<R>(p, w);
  auto steep = reinterpret_cast<uint32_t*>(shared + at.steep);
  if (thread() == 0) *steep = 0;
  lay_out_columns(p, w, s, weights, starts);
  find_peaks<T>(p, w, shared + at.peaks, shared + at.shares);
  Pulls<R> pulls = pulls_of(p, w, s, shared + at.peaks, steep);
  for (int first = 0; first < p.channels; first += p.chunk) {
    int count = p.channels - first < p.chunk ? p.channels - first : p.chunk;
    load_pairs<T>(p, w, shared + at.peaks, first, count, pairs, steep);
    sync_block();
    if (p.even_steps && *steep == 0) {
      pull_columns<R, true>(p, w, pairs, first, count, s, pulls, sums);
    } else {
      pull_columns<R, false>(p, w, pairs, first, count, s, pulls, sums);
    }
    sync_block();
    gather_columns(w, sums, count, weights, starts, left, right);
    sync_block();
    write_partial(p, w, first, count, left, right);
  }
}

// The gradient: for each logit the sums of the blocks around it, in their order. A
// block has 32 columns of a row, a warp kChannels channels at once.
template <class T>
__global__ void __launch_bounds__(kColumns)
    add_partials_kernel(const LossProblem p) {
  int pieces = (p.columns.inputs + 31) / 32, block = block_x();
  int column = block % pieces * 32 + thread() % 32;
  block /= pieces;
  int row = block % p.rows.inputs;
  int64_t image = block / p.rows.inputs;
  if (column >= p.columns.inputs) return;
  int first_column = first_of(p.columns, column ? column - 1 : -1);
  int last_column = first_of(p.columns, column + 1) - 1;
  int each = kColumns / 32 * kChannels;
  for (int c = thread() / 32 * kChannels; c < p.channels; c += each) {
    int count = p.channels - c < kChannels ? p.channels - c : kChannels;
    float sum[kChannels] = {};
    // The rows after the one before; the rows of cell -1 belong to row 0.
    for (int cell = row - 1; cell <= row; ++cell) {
      bool after = cell >= 0 && cell < row;
      int rows = first_of(p.rows, cell + 1) - first_of(p.rows, cell);
      for (int group = 0; group * p.strip < rows; ++group) {
        int64_t line = image * (p.rows.inputs + 1) + cell + 1;
        line = line * p.groups + group;
        for (int tile = first_column / kColumns; tile <= last_column / kColumns;
             ++tile) {
          int left = tile * kColumns, right = left + kColumns - 1;
          right = right < p.columns.outputs ? right : p.columns.outputs - 1;
          int first = input_before(cell_of(p.columns, left));
          int last = input_after(p.columns, cell_of(p.columns, right));
          const float* from = partial_of(p, line * p.tiles + tile,
                                         last + 1 - first, after, c) +
                              column - first;
#pragma unroll
          for (int k = 0; k < kChannels; ++k) {
            if (k < count) sum[k] += from[k * (last + 1 - first)];
          }
        }
      }
    }
    auto out = static_cast<T*>(p.grad_logits) + (image * p.channels + c) * p.map +
               row * p.columns.inputs + column;
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      if (k < count) out[k * p.map] = from_float<T>(sum[k]);
    }
  }
}

// --- Launches ----------------------------------------------------------------

template <class T, int R>
const char* run_loss(const LossProblem& p, const LossPlan& plan, bool backward,
                     void* stream) {
  Launch work = {plan.blocks, 1, kColumns, 1, plan.bytes, stream};
  if (!backward) return launch(cross_entropy_kernel<T, R>, work, p);
  if (auto wrong = launch(cross_entropy_backward_kernel<T, R>, work, p)) {
    return wrong;
  }
  int pieces = (p.columns.inputs + 31) / 32;
  Launch add = {p.batch * p.rows.inputs * pieces, 1, kColumns, 1, 0, stream};
  return launch(add_partials_kernel<T>, add, p);
}

template <class T>
const char* run_loss(const LossProblem& p, const LossPlan& plan, bool backward,
                     void* stream) {
  return plan.strip == 8 ? run_loss<T, 8>(p, plan, backward, stream)
                         : run_loss<T, 4>(p, plan, backward, stream);
}

}  // namespace encstdc
