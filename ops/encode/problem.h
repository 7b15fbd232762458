// Kernel arguments: sizes, pointers, and the layout of memory.
//
// i counts features, k codewords, d channels. A tile has kBlockFeatures features of one
// image, a chunk block_channels channels, a group kBlockCodewords codewords. Formulas
// have c and x less the mean codeword (for bfloat16: 0). Memory holds c less the mean,
// but x itself: the mean is subtracted on its way from shared memory to registers. G is
// the encodings' gradient. An operand is a factor of a matrix product.
#pragma once
#include "encode.h"

namespace encstdc {

constexpr int kLog2BlockFeatures = 5, kBlockFeatures = 1 << kLog2BlockFeatures;  // 32
constexpr int kBlockCodewords = 32, kMaxCodewords = 256;
constexpr int kMaxClusterSize = 1 << 3;  // CUDA's limit for all devices
// block_channels is a power of two in this range: 128, 256 or 512.
constexpr int kMinBlockChannels = 1 << 7, kMaxBlockChannels = 1 << 9;
// Each warp has block_channels / kWarps channels: 64 of 512.
constexpr int kLog2Warps = 3, kWarps = 1 << kLog2Warps;  // 8
constexpr int kThreads = 32 * kWarps;                    // 256
constexpr int kPartialBuffers = 4;  // of partial products: 4 x 32 x 32 floats, 16 KiB

inline int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Byte offsets of the arrays in a block's shared memory, set by lay_out_shared.
struct SharedLayout {
  int x_tiles, centred_codewords, grad_operands, partial_products;
  int logits, grad_assignment, assignment, grad_logits, neg_twice_grad_distance;
  int mean, partial_x_sq, x_sq, neg_twice_grad_distance_sum;
  int codeword_sq, scale, grad_dot_codeword;
  int assignment_sum, grad_logits_sum, grad_logits_x_sq_sum;
  int64_t bytes;  // of all; offsets are valid if this is no more than a block may have
};

// The argument of every kernel. K_pad and D_pad are K and D rounded up to multiples of
// kBlockCodewords and block_channels.
//
// The tiles of all images are numbered consecutively, and each cluster of blocks gets
// an equal range. A segment is the tiles of one image assigned to one cluster. Its
// number is cluster_id + image < segments = B + clusters - 1; some numbers are unused.
struct Problem : Arguments {
  int B, D, N, K;
  int D_pad, K_pad;
  int block_channels, log2_block_channels;
  int chunks, groups;  // D_pad / block_channels, K_pad / kBlockCodewords
  int stages, blocks, cluster_size;
  int tiles;                           // of one image
  int clusters;                        // blocks / cluster_size
  bool channels_are_rows;              // of a tile of x, otherwise its columns
  bool x_in_pieces, grad_x_in_pieces;  // copied 16 bytes at a time
  SharedLayout at;

  // The workspace in device memory. A sum over i is a partial sum: it covers the tiles
  // of one segment that one block computes. README.md defines tile and segment.
  float* mean;               // (D_pad)
  void* centred_codewords;   // (terms, K_pad, D_pad) operands c_kd
  float* codeword_sq;        // (K_pad) |c_k|^2, of floats
  void* grad_operands;       // (B, K_pad, D_pad) operands G_kd
  float* grad_dot_codeword;  // (B, K_pad) G_k . c_k, of operands G and floats c
  // (segments, K_pad, D_pad) assignment (forward) or grad_logits (backward) times x,
  // per segment; a running sum with several chunks.
  float* weighted_x_partial_sum;
  float* assignment_partial_sum;        // (segments, cluster_size, K_pad) sum_i A_ik
  float* grad_logits_partial_sum;       // likewise, sum_i dl_ik
  float* grad_logits_x_sq_partial_sum;  // likewise, sum_i dl_ik |x_i|^2
};

static_assert(sizeof(Problem) <= 4096, "the most bytes of arguments before CUDA 12.1");

// Entry points of a .cu file: the launches of a pass (nullptr, or the error as text),
// and how many blocks the device runs at once in clusters of p.cluster_size.
struct Kernels {
  const char* (*run)(const Problem& p, bool backward, void* stream);
  int (*active_blocks)(const Problem& p, bool backward);
};
extern const Kernels kFloat32Kernels, kFloat16Kernels, kBFloat16Kernels;

// Lays out shared memory. x_bytes and operand_bytes are sizes of an element. A map is
// (K_pad, kBlockFeatures). Float operands: assignment shares memory with logits, and
// grad_logits with grad_assignment. A sum over i is over a block's tiles of a segment.
inline SharedLayout lay_out_shared(const Problem& p, int x_bytes, int operand_bytes,
                                   bool backward) {
  SharedLayout at = {};
  auto take = [&at](int64_t count, int size) {
    int here = int(at.bytes);
    at.bytes += round_up(count * size, 128);
    return here;
  };
  int64_t map = int64_t(p.K_pad) * kBlockFeatures;      // 32 x 32 at K = 32
  int64_t matrix = kBlockCodewords * p.block_channels;  // 32 x 512 at D = 512
  int64_t tile = kBlockFeatures * p.block_channels;
  auto replace = [&](int floats) {
    return operand_bytes == 4 ? floats : take(map, operand_bytes);
  };
  // (stages) tiles of x_id: (block_channels, kBlockFeatures), or the transpose of that.
  // They are NOT centred: the mean is subtracted when fragments are loaded. In the
  // backward pass a tile holds grad_x after replace_x.
  at.x_tiles = take(p.stages * tile, x_bytes);
  // (terms, kBlockCodewords, block_channels) operands c_kd: one term of floats, two of
  // bfloat16. At the end of a segment the block's sum_i w_ik x_id, as floats.
  at.centred_codewords = take(matrix, 4);
  // (kPartialBuffers, kBlockCodewords, kBlockFeatures): one buffer for two warps.
  at.partial_products = take(kPartialBuffers * kBlockCodewords * kBlockFeatures, 4);
  at.logits = take(map, 4);  // in turn c_k . x_i, l_ik and exp(l_ik - max_k l_ik)
  at.assignment = replace(at.logits);   // map of operands A_ik
  at.mean = take(p.block_channels, 4);  // (block_channels) of the chunk
  // (kWarps, kBlockFeatures) |x_i|^2 over the channels of a warp.
  at.partial_x_sq = take(kWarps * kBlockFeatures, 4);
  at.x_sq = take(kBlockFeatures, 4);     // (kBlockFeatures) |x_i|^2
  at.codeword_sq = take(p.K_pad, 4);     // (K_pad) |c_k|^2
  at.scale = take(p.K_pad, 4);           // (K_pad) s_k
  at.assignment_sum = take(p.K_pad, 4);  // (K_pad) sum_i A_ik
  if (!backward) return at;
  // (kBlockCodewords, block_channels) operands G_kd.
  at.grad_operands = take(matrix, operand_bytes);
  at.grad_assignment = take(map, 4);                         // G_k . x_i, then dA_ik
  at.grad_logits = replace(at.grad_assignment);              // map of operands dl_ik
  at.neg_twice_grad_distance = take(map, operand_bytes);     // of operands -2 s_k dl_ik
  at.neg_twice_grad_distance_sum = take(kBlockFeatures, 4);  // (kBlockFeatures), over k
  at.grad_dot_codeword = take(p.K_pad, 4);                   // (K_pad) G_k . c_k
  at.grad_logits_sum = take(p.K_pad, 4);                     // (K_pad) sum_i dl_ik
  at.grad_logits_x_sq_sum = take(p.K_pad, 4);  // (K_pad) sum_i dl_ik |x_i|^2
  return at;
}

// Sets the workspace pointers of `p`, from `base` on. Returns the end.
inline char* lay_out_workspace(Problem& p, char* base, bool backward) {
  auto take = [&base](int64_t count) {
    char* here = base;
    base += round_up(4 * count, 256);
    return reinterpret_cast<float*>(here);
  };
  int64_t matrix = int64_t(p.K_pad) * p.D_pad, segments = int64_t(p.B) + p.clusters - 1;
  int64_t block_sums = segments * p.cluster_size * p.K_pad;
  p.mean = take(p.D_pad);
  p.centred_codewords = take(matrix);  // one term of floats or two of bfloat16
  p.codeword_sq = take(p.K_pad);
  p.weighted_x_partial_sum = take(segments * matrix);
  p.assignment_partial_sum = take(block_sums);
  if (!backward) return base;
  p.grad_operands = take(p.B * matrix);
  p.grad_dot_codeword = take(int64_t(p.B) * p.K_pad);
  p.grad_logits_partial_sum = take(block_sums);
  p.grad_logits_x_sq_partial_sum = take(block_sums);
  return base;
}

}  // namespace encstdc
