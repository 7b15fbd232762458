// The plan and the kernel arguments.
#include "problem.h"

namespace encstdc {
namespace {

const Kernels* const kKernels[] = {
    // by Type
    &kFloat32Kernels, &kFloat16Kernels, &kBFloat16Kernels};
int x_bytes(Type type) { return type == Type::kFloat32 ? 4 : 2; }
int operand_bytes(Type type) { return type == Type::kBFloat16 ? 2 : 4; }

// Returns the kernel arguments without pointers.
Problem problem_of(const Shape& shape, const Plan& plan, bool backward) {
  Problem p = {};
  p.B = int(shape.B), p.D = int(shape.D), p.N = int(shape.N), p.K = int(shape.K);
  p.block_channels = plan.block_channels, p.stages = plan.stages;
  while (1 << p.log2_block_channels < p.block_channels) ++p.log2_block_channels;
  p.blocks = plan.blocks, p.cluster_size = plan.cluster_size;
  p.clusters = p.blocks / p.cluster_size;
  p.tiles = int(round_up(shape.N, kBlockFeatures) / kBlockFeatures);
  p.D_pad = int(round_up(shape.D, p.block_channels));
  p.K_pad = int(round_up(shape.K, kBlockCodewords));
  p.chunks = p.D_pad / p.block_channels, p.groups = p.K_pad / kBlockCodewords;
  p.at = lay_out_shared(p, x_bytes(shape.type), operand_bytes(shape.type), backward);
  return p;
}

// Returns whether the kernels support a shape. The y size of prepare_kernel's grid is
// 1 + B, and CUDA's limit is 65535. Offsets in a group (kBlockCodewords, D_pad) and in
// features are ints. Half their range leaves room for padding.
bool are_supported(const Shape& shape) {
  constexpr int64_t kMost = INT32_MAX / 2;
  return 1 <= shape.B && shape.B < 65535 && 1 <= shape.N && shape.N <= kMost &&
         1 <= shape.D && shape.D <= kMost / kBlockCodewords && 1 <= shape.K &&
         shape.K <= kMaxCodewords;
}

// Sets as many channels as fit in shared memory, and two stages if these fit too and
// all channels are one chunk. Returns false if not even the fewest channels fit.
bool fit(const Shape& shape, const Device& device, bool backward, Plan& plan) {
  plan.blocks = plan.cluster_size = 1;
  int& channels = plan.block_channels;
  channels = kMinBlockChannels;
  while (channels < shape.D && channels < kMaxBlockChannels) channels *= 2;
  for (; channels >= kMinBlockChannels; channels /= 2) {
    for (plan.stages = shape.D <= channels ? 2 : 1; plan.stages; --plan.stages) {
      plan.shared_bytes = problem_of(shape, plan, backward).at.bytes;
      if (plan.shared_bytes <= device.shared_bytes) return true;
    }
  }
  return false;
}

// Returns the tiles of the block that has the most, as walk_kernel divides them.
int64_t most_tiles(const Problem& p) {
  int64_t tiles = int64_t(p.B) * p.tiles, most = 0;
  for (int id = 0; id < p.clusters; ++id) {
    int64_t next = tiles * id / p.clusters, end = tiles * (id + 1) / p.clusters;
    int64_t own = 0;
    while (next < end) {
      int64_t image_end = (next / p.tiles + 1) * p.tiles;
      int64_t count = (image_end < end ? image_end : end) - next;
      own += (count + p.cluster_size - 1) / p.cluster_size, next += count;
    }
    most = most < own ? own : most;
  }
  return most;
}

// Sets blocks and cluster_size: as many blocks as the device runs at once, in the
// largest clusters that give no block over an eighth more tiles. A cluster has one
// weighted_x_partial_sum per segment, as a block has without clusters; but its size may
// not divide the groups of multiprocessors.
void divide_tiles(const Shape& shape, const Device& device, bool backward, Plan& plan) {
  Problem p = problem_of(shape, plan, backward);
  int64_t tiles = int64_t(p.B) * p.tiles, blocks = device.multiprocessors;
  bool single_chunk = p.chunks * p.groups == 1;
  if (!single_chunk) {  // the partial sums of all blocks take at most an eighth of x
    int64_t sums = int64_t(4) * p.K_pad * p.D_pad;
    int64_t most = int64_t(x_bytes(shape.type)) * p.B * p.D * p.N / 8 / sums - p.B;
    blocks = most < 1 ? 1 : blocks < most ? blocks : most;
  }
  plan.blocks = int(blocks < tiles ? blocks : tiles);
  if (!single_chunk) return;
  int64_t least = most_tiles(problem_of(shape, plan, backward));
  for (int cluster_size = kMaxClusterSize; cluster_size > 1; cluster_size /= 2) {
    Plan other = plan;
    other.blocks = other.cluster_size = cluster_size;
    int active = kKernels[int(shape.type)]->active_blocks(
        problem_of(shape, other, backward), backward);
    if (active < cluster_size) continue;
    other.blocks = active < device.multiprocessors ? active : device.multiprocessors;
    other.blocks -= other.blocks % cluster_size;
    if (other.blocks / cluster_size > tiles) other.blocks = int(tiles) * cluster_size;
    if (most_tiles(problem_of(shape, other, backward)) <= least + least / 8) {
      plan = other;
      return;
    }
  }
}

// Returns whether rows are dense and 16-byte aligned, so that tiles are copied 16 bytes
// at a time.
bool in_pieces(const FeatureView& x, int batch, int bytes, bool channels_are_rows) {
  int64_t along = channels_are_rows ? x.feature_stride : x.channel_stride;
  int64_t across = channels_are_rows ? x.channel_stride : x.feature_stride;
  bool aligned =
      across * bytes % 16 == 0 && (batch == 1 || x.batch_stride * bytes % 16 == 0);
  return along == 1 && aligned && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

}  // namespace

Plan make_plan(const Shape& shape, const Device& device, bool backward) {
  Plan plan = {};
  if (!are_supported(shape) || !fit(shape, device, backward, plan)) return {};
  divide_tiles(shape, device, backward, plan);
  Problem p = problem_of(shape, plan, backward);
  char* start = nullptr;
  plan.workspace_bytes = lay_out_workspace(p, start, backward) - start;
  return plan;
}

const char* run(const Shape& shape, const Plan& plan, const Arguments& arguments,
                void* workspace, void* stream) {
  bool backward = arguments.grad != nullptr;
  const FeatureView& x = arguments.x;
  Problem p = problem_of(shape, plan, backward);
  // Clusters need a single chunk, and a tile each.
  if ((p.cluster_size > 1 && p.chunks * p.groups > 1) ||
      p.clusters > int64_t(p.B) * p.tiles)
    return "the plan is not for this shape";
  static_cast<Arguments&>(p) = arguments;
  int bytes = x_bytes(shape.type);
  p.channels_are_rows = x.channel_stride != 1 || x.feature_stride == 1;
  p.x_in_pieces = in_pieces(x, p.B, bytes, p.channels_are_rows);
  p.grad_x_in_pieces = backward && in_pieces(p.grad_x, p.B, bytes, p.channels_are_rows);
  lay_out_workspace(p, static_cast<char*>(workspace), backward);
  return kKernels[int(shape.type)]->run(p, backward, stream);
}

}  // namespace encstdc
