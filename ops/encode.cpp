// From arguments to launches: the plan of a launch, and who runs it.
#include "encode.h"

#include "problem.h"

namespace encstdc {

// One for each type, in a .cu file of its own.
using Run = const char*(const Problem&, bool backward, void* stream);
Run run_float32, run_float16, run_bfloat16;

namespace {

Run* run_of(Type type) {
  if (type == Type::kFloat32) return run_float32;
  return type == Type::kFloat16 ? run_float16 : run_bfloat16;
}

int scalar_bytes(Type type) { return type == Type::kFloat32 ? 4 : 2; }
int operand_bytes(Type type) { return type == Type::kBFloat16 ? 2 : 4; }

Problem problem_of(const Shape& shape, const Plan& plan, bool backward) {
  Problem p = {};
  p.batch = shape.batch, p.channels = shape.channels;
  p.features = shape.features, p.codes = shape.codes;
  p.chunk = plan.chunk, p.stages = plan.stages;
  while (1 << p.chunk_bits < p.chunk) ++p.chunk_bits;
  p.splits = plan.splits, p.cluster = plan.cluster;
  p.padded_channels = int(round_up(shape.channels, plan.chunk));
  p.padded_codes = int(round_up(shape.codes, kGroup));
  p.chunks = p.padded_channels / p.chunk, p.groups = p.padded_codes / kGroup;
  p.at = lay_out_shared(p, scalar_bytes(shape.type), operand_bytes(shape.type),
                        backward);
  return p;
}

bool whole(const Problem& p) { return p.chunks == 1 && p.groups == 1; }

// The most channels at once, and then the next tile ahead, that memory allows.
bool fit(const Shape& shape, const Device& device, bool backward, Plan& plan) {
  int most = shape.channels > 256 ? 512 : shape.channels > 128 ? 256 : 128;
  for (plan.chunk = most; plan.chunk >= 128; plan.chunk /= 2) {
    for (plan.stages = shape.channels <= plan.chunk ? 2 : 1; plan.stages;
         --plan.stages) {
      plan.splits = plan.cluster = 1;
      plan.bytes = problem_of(shape, plan, backward).at.bytes;
      if (plan.bytes <= device.shared_bytes) return true;
    }
  }
  return false;
}

// One block to a multiprocessor, as far as there are tiles. Blocks of a cluster
// share one set of sums; the others may have an eighth of x, or one each image.
void split(const Shape& shape, const Device& device, Plan& plan) {
  Problem p = problem_of(shape, plan, false);
  int64_t tiles = (shape.features + int64_t(kTile) - 1) / kTile;
  int64_t splits = device.processors / shape.batch;
  if (!whole(p)) {
    int64_t sums = int64_t(4) * p.padded_codes * p.padded_channels;
    int64_t image =
        int64_t(scalar_bytes(shape.type)) * shape.channels * shape.features;
    int64_t most = image / 8 / sums;
    splits = splits < most ? splits : most;
  }
  splits = splits < tiles ? splits : tiles;
  plan.splits = splits < 1 ? 1 : int(splits);
  if (!whole(p) || device.capability < 90) return;
  while (plan.cluster < 8 && plan.cluster * 2 <= plan.splits) plan.cluster *= 2;
  plan.splits -= plan.splits % plan.cluster;
}

// In 16-byte pieces: neighbours along one axis, and every other stride even.
bool in_pieces(const View& x, int size, bool channels_are_rows) {
  int64_t along = channels_are_rows ? x.feature : x.channel;
  int64_t across = channels_are_rows ? x.channel : x.feature;
  return along == 1 && across * size % 16 == 0 && x.batch * size % 16 == 0 &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

const char* run(Problem p, Type type, const View& x, const float* codewords,
                const float* scale, bool backward, void* workspace,
                void* stream) {
  p.x = x;
  p.codewords = codewords, p.scale = scale;
  int size = scalar_bytes(type);
  p.channels_are_rows = x.channel != 1 || x.feature == 1;
  p.copy_x = in_pieces(x, size, p.channels_are_rows);
  p.copy_grad_x = backward && in_pieces(p.grad_x, size, p.channels_are_rows);
  lay_out_workspace(p, static_cast<char*>(workspace), backward);
  return run_of(type)(p, backward, stream);
}

}  // namespace

Plan plan(const Shape& shape, const Device& device, bool backward) {
  Plan plan = {};
  if (!fit(shape, device, backward, plan)) return {};
  split(shape, device, plan);
  Problem p = problem_of(shape, plan, backward);
  plan.workspace = lay_out_workspace(p, nullptr, backward) - static_cast<char*>(nullptr);
  return plan;
}

const char* forward(const Shape& shape, const Plan& plan, const View& x,
                    const float* codewords, const float* scale,
                    float* encodings, void* workspace, void* stream) {
  Problem p = problem_of(shape, plan, false);
  p.encodings = encodings;
  return run(p, shape.type, x, codewords, scale, false, workspace, stream);
}

const char* backward(const Shape& shape, const Plan& plan, const View& x,
                     const float* codewords, const float* scale,
                     const float* grad, const View& grad_x,
                     float* grad_codewords, float* grad_scale, void* workspace,
                     void* stream) {
  Problem p = problem_of(shape, plan, true);
  p.grad = grad, p.grad_x = grad_x;
  p.grad_codewords = grad_codewords, p.grad_scale = grad_scale;
  return run(p, shape.type, x, codewords, scale, true, workspace, stream);
}

}  // namespace encstdc
