// From arguments to launches of the cross entropy of upsampled logits.
#include "cross_entropy.h"

#include <limits>

#include "upsampling.h"

namespace encstdc {

// One for each type, in a .cu file of its own.
using RunLoss = const char*(const LossProblem&, const LossPlan&, bool backward,
                            void* stream);
RunLoss loss_float32, loss_float16, loss_bfloat16;

namespace {

constexpr int kMost = std::numeric_limits<int>::max();
constexpr int kMostSize = 1 << 22;  // float counts halves up to it, twice
// Of channels in shared memory: registers leave five blocks to a multiprocessor,
// and 48 KiB need no asking.
constexpr int kForwardBytes = 24 * 1024, kBackwardBytes = 40 * 1024;

RunLoss* run_of(Type type) {
  if (type == Type::kFloat32) return loss_float32;
  return type == Type::kFloat16 ? loss_float16 : loss_bfloat16;
}

Axis axis_of(int inputs, int outputs, bool align_corners) {
  Axis axis = {inputs, outputs, float(inputs) / float(outputs), 0.5f};
  if (align_corners) {
    axis.half = 0;
    axis.scale = outputs > 1 ? float(inputs - 1) / float(outputs - 1) : 0;
  }
  if (axis.scale > 0) axis.ratio = 1 / axis.scale;
  return axis;
}

// Four steps or more to a cell, all of the same length in float: a power of two,
// of which every source is a whole number of halves.
bool even_steps(const Axis& axis) {
  int power = 0;
  return axis.scale > 0 && axis.scale <= 0.25f &&
         std::frexp(axis.scale, &power) == 0.5f &&
         2 * axis.inputs / axis.scale < 1 << 24;
}

// No cell has more outputs; rounding may add one.
int most_in_cell(const Axis& axis) {
  if (axis.scale == 0) return axis.outputs;
  double steps = 1 / double(axis.scale);
  double most = even_steps(axis) ? steps : std::floor(steps) + 2;
  return most < axis.outputs ? int(most) : axis.outputs;
}

bool sized(int size) { return size >= 1 && size < kMostSize; }

bool supported(const LossShape& shape) {
  return sized(shape.batch) && sized(shape.channels) && sized(shape.rows) &&
         sized(shape.columns) && sized(shape.label_rows) &&
         sized(shape.label_columns) && shape.rows <= shape.label_rows &&
         shape.columns <= shape.label_columns &&
         int64_t(shape.rows) * shape.columns < kMostSize &&
         int64_t(shape.rows) * shape.columns * shape.channels <= kMost / 2;
}

LossProblem problem_of(const LossShape& shape, const LossPlan& plan,
                       const void* logits, const void* labels) {
  LossProblem p = {};
  p.logits = logits, p.labels = labels;
  p.batch = shape.batch, p.channels = shape.channels;
  p.rows = axis_of(shape.rows, shape.label_rows, shape.align_corners);
  p.columns = axis_of(shape.columns, shape.label_columns, shape.align_corners);
  p.map = shape.rows * shape.columns;
  p.even_steps = even_steps(p.rows);
  p.strip = plan.strip, p.groups = plan.groups, p.tiles = plan.tiles;
  p.width = plan.width, p.chunk = plan.chunk;
  p.byte_labels = shape.byte_labels, p.ignore_index = shape.ignore_index;
  return p;
}

int up(int64_t value, int64_t unit) { return int((value + unit - 1) / unit); }

}  // namespace

LossPlan plan(const LossShape& shape, bool backward) {
  if (!supported(shape)) return {};
  LossPlan plan = {};
  Axis rows = axis_of(shape.rows, shape.label_rows, shape.align_corners);
  Axis columns = axis_of(shape.columns, shape.label_columns, shape.align_corners);
  int most = most_in_cell(rows);
  plan.strip = most > 4 ? 8 : 4;
  plan.groups = up(most, plan.strip);
  plan.tiles = up(shape.label_columns, kColumns);
  // From the input before the first column to the one after the last.
  plan.width = int((kColumns - 1) * columns.scale + 0.5f) + 3;
  if (plan.width > shape.columns) plan.width = shape.columns;
  int64_t blocks = int64_t(shape.batch) * (shape.rows + 1) * plan.groups;
  // The last kernel has up to four blocks to a tile.
  if (blocks > kMost / 4 / plan.tiles) return {};
  plan.blocks = int(blocks * plan.tiles);
  // Chunks of the same size.
  int chunk = backward ? kBackwardBytes / (8 * (3 * plan.width + kSumStride))
                       : kForwardBytes / (8 * plan.width);
  plan.chunk = up(shape.channels, up(shape.channels, chunk));
  plan.bytes = 4 * lay_out_loss(plan.width, plan.chunk, backward).floats;
  if (backward) {
    plan.workspace = int64_t(8) * plan.blocks * shape.channels * plan.width;
  }
  return plan;
}

const char* forward(const LossShape& shape, const LossPlan& plan,
                    const void* logits, const void* labels, float* losses,
                    uint8_t* hits, float* normaliser, void* stream) {
  LossProblem p = problem_of(shape, plan, logits, labels);
  p.losses = losses, p.hits = hits, p.normaliser = normaliser;
  return run_of(shape.type)(p, plan, false, stream);
}

const char* backward(const LossShape& shape, const LossPlan& plan,
                     const float* grad, const void* logits, const void* labels,
                     const float* normaliser, void* grad_logits, void* workspace,
                     void* stream) {
  LossProblem p = problem_of(shape, plan, logits, labels);
  p.grad = grad, p.normaliser = const_cast<float*>(normaliser);
  p.grad_logits = grad_logits, p.partial = static_cast<float*>(workspace);
  return run_of(shape.type)(p, plan, true, stream);
}

}  // namespace encstdc
