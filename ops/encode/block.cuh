// The indices, shared arrays and loads of a block in its loop over tiles.
#pragma once
#include "../common/products.cuh"
#include "problem.h"

namespace encstdc {

static_assert(kBlockCodewords == 32 && kBlockFeatures == 32 && kWarps == 8,
              "GroupProduct is 32 x 32, and there are 8 threads per feature");
static_assert(kMinBlockChannels / kWarps % 16 == 0 && kMaxBlockChannels / kWarps <= 64,
              "a warp has complete fragments of 16 channels, at most 64 channels");
static_assert(kMinBlockChannels * kBlockFeatures % (kLoadsInFlight * kThreads) == 0,
              "fill() gives every thread complete runs of kLoadsInFlight elements");
static_assert(kThreads * 4 >= kMaxBlockChannels, "fill() copies complete rows");
static_assert(kWarps == 2 * kPartialBuffers, "a buffer is for two warps");
static_assert(kMinBlockChannels * 2 % 128 == 0, "Tile swizzles lines of 128 bytes");
static_assert(kBlockCodewords * kMinBlockChannels % kMaxClusterSize == 0, "ranges");

// CHANNELS_ARE_ROWS: channels are the rows of a tile of x and features its columns,
// otherwise the reverse. SINGLE_CHUNK: all channels are one chunk and all codewords one
// group, so that they stay in shared memory, and the block's sums in registers.
template <class ProductType, bool CHANNELS_ARE_ROWS, bool BACKWARD, bool SINGLE_CHUNK>
struct Block {
  using Product = ProductType;
  using Scalar = typename Product::Scalar;
  using Operand = typename Product::Operand;
  static constexpr bool kChannelsAreRows = CHANNELS_ARE_ROWS, kBackward = BACKWARD;
  static constexpr bool kSingleChunk = SINGLE_CHUNK;
  static_assert(Product::kCodewordTerms * sizeof(Operand) == sizeof(float),
                "codewords of all terms and float sums take turns in shared memory");
  static_assert(kBlockCodewords % Product::kDepth == 0, "multiply_rows");
  static_assert(kBlockFeatures % Product::kDepth == 0, "multiply_weights");
  using XTile = Tile<Scalar, CHANNELS_ARE_ROWS ? kBlockFeatures : 0>;
  using CodewordTile = Tile<Operand>;  // (kBlockCodewords, block_channels)
  using Map = Tile<float, kBlockFeatures>;
  using OperandMap = Tile<Operand, kBlockFeatures>;
  // sum_i w_ik x_id of a group and of at most 64 channels of a warp. [i][j] of a lane
  // are the codewords 16 i + g, 16 i + g + 8 and the channels 8 j + 2 t, 8 j + 2 t + 1.
  using WeightedXSum = float[2][8][4];

  const Problem& p;
  int warp, g, t;                    // lane l is (g, t) = (l / 4, l % 4)
  int cluster_id, rank;              // the block's cluster, and its place in that
  int image, segment;                // that the cluster works on
  int warp_channels, first_channel;  // of this warp, within a chunk

  __device__ Block(const Problem& problem) : p(problem) {
    warp = thread() / 32, g = thread() % 32 / 4, t = thread() % 4;
    cluster_id = block_x() / p.cluster_size, rank = block_x() % p.cluster_size;
    warp_channels = p.block_channels / kWarps, first_channel = warp * warp_channels;
  }

  // A thread computes one feature of a tile and every eighth codeword. add_products,
  // assign_forward and assign_backward all use this map. A thread reads what it wrote
  // itself, so no barrier stands between them.
  __device__ int own_feature() const { return 4 * warp + t; }
  template <typename F> __device__ void for_own_codewords(int count, F f) const {
    for (int k = g; k < count; k += 8) f(k);
  }

  // Arrays in shared memory: lay_out_shared in problem.h has their shapes.
  template <typename T> __device__ static T* shared(int offset) {
    return reinterpret_cast<T*>(shared_memory() + offset);
  }
  __device__ static float* floats(int offset) { return shared<float>(offset); }
  __device__ static Map map(int offset) { return {floats(offset)}; }
  __device__ static OperandMap operands(int at) { return {shared<Operand>(at)}; }
  __device__ XTile x_tile(int stage) const {
    auto tiles = shared<Scalar>(p.at.x_tiles);
    return {tiles + stage * p.block_channels * kBlockFeatures, p.block_channels};
  }
  __device__ CodewordTile centred_codewords(int term) const {
    auto terms = shared<Operand>(p.at.centred_codewords);
    return {terms + term * kBlockCodewords * p.block_channels, p.block_channels};
  }
  __device__ CodewordTile grad_operands() const {
    return {shared<Operand>(p.at.grad_operands), p.block_channels};
  }
  // In turn c_k . x_i, l_ik and exp(l_ik - max_k l_ik).
  __device__ Map logits() const { return map(p.at.logits); }
  __device__ Map grad_assignment() const { return map(p.at.grad_assignment); }
  __device__ OperandMap assignment() const { return operands(p.at.assignment); }
  __device__ OperandMap grad_logits() const { return operands(p.at.grad_logits); }
  __device__ OperandMap neg_twice_grad_distance() const {
    return operands(p.at.neg_twice_grad_distance);
  }
  // Returns what to subtract from x when fragments are loaded; nullptr: nothing.
  __device__ const float* mean() const {
    return Product::kCentred ? floats(p.at.mean) : nullptr;
  }

  // Loads the arrays of length K_pad, and sets the sums of a segment to 0.
  __device__ void load_constants() const {
    for (int k = thread(); k < p.K_pad; k += kThreads) {
      floats(p.at.codeword_sq)[k] = p.codeword_sq[k];
      floats(p.at.scale)[k] = k < p.K ? p.scale[k] : 0;
      floats(p.at.assignment_sum)[k] = 0;
      if (BACKWARD) {
        floats(p.at.grad_dot_codeword)[k] = p.grad_dot_codeword[image * p.K_pad + k];
        floats(p.at.grad_logits_sum)[k] = floats(p.at.grad_logits_x_sq_sum)[k] = 0;
      }
    }
  }

  // Copies centred codewords (and G) of a chunk and a group, asynchronously.
  __device__ void load_codewords(int chunk, int group) const {
    int64_t first =
        int64_t(group) * kBlockCodewords * p.D_pad + int64_t(chunk) * p.block_channels;
    int64_t matrix = int64_t(p.K_pad) * p.D_pad;
    auto load = [&](const CodewordTile& tile, const Operand* from) {
      Part<const Operand> part = {from, p.D_pad, 1, kBlockCodewords, p.block_channels};
      fill<kThreads>(tile, part, kBlockCodewords, p.log2_block_channels, true);
    };
    auto centred = static_cast<const Operand*>(p.centred_codewords);
    for (int term = 0; term < Product::kCodewordTerms; ++term) {
      load(centred_codewords(term), centred + term * matrix + first);
    }
    if (BACKWARD) {
      auto from = static_cast<const Operand*>(p.grad_operands);
      load(grad_operands(), from + image * matrix + first);
    }
  }

  __device__ void load_mean(int chunk) const {
    for (int d = thread(); d < p.block_channels; d += kThreads) {
      floats(p.at.mean)[d] = p.mean[chunk * p.block_channels + d];
    }
  }

  // Returns a tile and a chunk of x or its gradient, in device memory.
  __device__ Part<Scalar> part_of(const FeatureView& view, int tile, int chunk) const {
    int d = chunk * p.block_channels, i = tile * kBlockFeatures;
    auto data = static_cast<Scalar*>(view.data) + image * view.batch_stride +
                d * view.channel_stride + i * view.feature_stride;
    if (CHANNELS_ARE_ROWS) {
      return {data, view.channel_stride, view.feature_stride, p.D - d, p.N - i};
    }
    return {data, view.feature_stride, view.channel_stride, p.N - i, p.D - d};
  }
  __device__ void load_x(int tile, int chunk, int stage) const {
    fill<kThreads>(x_tile(stage), part_of(p.x, tile, chunk),
                   CHANNELS_ARE_ROWS ? p.block_channels : kBlockFeatures,
                   CHANNELS_ARE_ROWS ? kLog2BlockFeatures : p.log2_block_channels,
                   p.x_in_pieces);
  }
  __device__ void prefetch_x(int tile) const {
    prefetch<kThreads>(part_of(p.x, tile, 0),
                       CHANNELS_ARE_ROWS ? p.block_channels : kBlockFeatures,
                       CHANNELS_ARE_ROWS ? kLog2BlockFeatures : p.log2_block_channels);
  }
};

// Returns the sum over lanes whose indices differ in the bits from FIRST to below END.
template <int FIRST, int END> __device__ float sum_lanes(float value) {
  for (int mask = FIRST; mask < END; mask *= 2) value += shuffle_xor(value, mask);
  return value;
}

}  // namespace encstdc
