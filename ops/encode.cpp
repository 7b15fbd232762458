// From arguments to launches: the plan of a launch, and who runs it.
#include "encode.h"

#include "problem.h"

namespace encstdc {

// One for each type, in a .cu file of its own.
using Run = const char*(const Problem&, bool backward, void* stream);
Run run_float32, run_float16, run_bfloat16;
using Active = int(const Problem&, bool backward);
Active active_float32, active_float16, active_bfloat16;

namespace {

Run* run_of(Type type) {
  if (type == Type::kFloat32) return run_float32;
  return type == Type::kFloat16 ? run_float16 : run_bfloat16;
}

Active* active_of(Type type) {
  if (type == Type::kFloat32) return active_float32;
  return type == Type::kFloat16 ? active_float16 : active_bfloat16;
}

int scalar_bytes(Type type) { return type == Type::kFloat32 ? 4 : 2; }
int operand_bytes(Type type) { return type == Type::kBFloat16 ? 2 : 4; }

Problem problem_of(const Shape& shape, const Plan& plan, bool backward) {
  Problem p = {};
  p.batch = shape.batch, p.channels = shape.channels;
  p.features = shape.features, p.codes = shape.codes;
  p.chunk = plan.chunk, p.stages = plan.stages;
  while (1 << p.chunk_bits < p.chunk) ++p.chunk_bits;
  p.blocks = plan.blocks, p.cluster = plan.cluster;
  p.teams = p.blocks / p.cluster;
  p.tiles = int((shape.features + int64_t(kTile) - 1) / kTile);
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
      plan.blocks = plan.cluster = 1;
      plan.bytes = problem_of(shape, plan, backward).at.bytes;
      if (plan.bytes <= device.shared_bytes) return true;
    }
  }
  return false;
}

// Tiles of the block that has the most; kernels.cuh walks likewise.
int64_t most_tiles(const Problem& p) {
  int64_t tiles = int64_t(p.batch) * p.tiles, most = 0;
  for (int team = 0; team < p.teams; ++team) {
    int64_t next = tiles * team / p.teams, end = tiles * (team + 1) / p.teams;
    int64_t own = 0;
    while (next < end) {
      int64_t stop = (next / p.tiles + 1) * p.tiles;
      int64_t count = (stop < end ? stop : end) - next;
      own += (count + p.cluster - 1) / p.cluster, next += count;
    }
    most = most < own ? own : most;
  }
  return most;
}

// As many blocks as a device runs at once, in the largest teams that cost no more
// than an eighth of the time: teams of 8 do not fit every group of multiprocessors,
// but what a team adds up takes the memory of one block.
void share(const Shape& shape, const Device& device, bool backward, Plan& plan) {
  Problem p = problem_of(shape, plan, backward);
  int64_t tiles = int64_t(shape.batch) * p.tiles, blocks = device.processors;
  if (!whole(p)) {  // the sums of the blocks may have an eighth of x
    int64_t sums = int64_t(4) * p.padded_codes * p.padded_channels;
    int64_t x = int64_t(scalar_bytes(shape.type)) * shape.batch *
                shape.channels * shape.features;
    int64_t most = x / 8 / sums - shape.batch;
    blocks = most < 1 ? 1 : blocks < most ? blocks : most;
  }
  plan.blocks = int(blocks < tiles ? blocks : tiles);
  if (!whole(p) || device.capability < 90) return;
  int64_t best = most_tiles(problem_of(shape, plan, backward));
  for (int cluster = 8; cluster > 1; cluster /= 2) {
    Plan other = plan;
    other.blocks = other.cluster = cluster;
    int active = active_of(shape.type)(problem_of(shape, other, backward),
                                       backward);
    if (active < cluster) continue;
    other.blocks = active < device.processors ? active : device.processors;
    other.blocks -= other.blocks % cluster;
    if (other.blocks / cluster > tiles) other.blocks = int(tiles) * cluster;
    if (most_tiles(problem_of(shape, other, backward)) <= best + best / 8) {
      plan = other;
      return;
    }
  }
}

// In 16-byte pieces: neighbours along one axis, and every other stride even.
bool in_pieces(const View& x, int batch, int size, bool channels_are_rows) {
  int64_t along = channels_are_rows ? x.feature : x.channel;
  int64_t across = channels_are_rows ? x.channel : x.feature;
  bool even = across * size % 16 == 0 && (batch == 1 || x.batch * size % 16 == 0);
  return along == 1 && even &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

const char* run(Problem p, Type type, const View& x, const float* codewords,
                const float* scale, bool backward, void* workspace,
                void* stream) {
  p.x = x;
  p.codewords = codewords, p.scale = scale;
  int size = scalar_bytes(type);
  p.channels_are_rows = x.channel != 1 || x.feature == 1;
  p.copy_x = in_pieces(x, p.batch, size, p.channels_are_rows);
  p.copy_grad_x =
      backward && in_pieces(p.grad_x, p.batch, size, p.channels_are_rows);
  lay_out_workspace(p, static_cast<char*>(workspace), backward);
  return run_of(type)(p, backward, stream);
}

}  // namespace

Plan plan(const Shape& shape, const Device& device, bool backward) {
  Plan plan = {};
  if (!fit(shape, device, backward, plan)) return {};
  share(shape, device, backward, plan);
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
