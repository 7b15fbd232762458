// What the kernels are given: sizes, strides, and where things lie.
#pragma once

#include "encode.h"

namespace encstdc {

constexpr int kTileBits = 5, kTile = 1 << kTileBits;  // features in a tile
constexpr int kGroup = 32;  // codewords that a product takes at once
constexpr int kWarpBits = 3, kWarps = 1 << kWarpBits;  // each owns chunk / 8
constexpr int kThreads = 32 * kWarps;
constexpr int kSlots = 4;  // shares of a product that are added at once

inline int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Where things lie in the shared memory of a block, in bytes from its start.
// Maps are (codes, kTile). With operands of 4 bytes some share a place.
struct Layout {
  int stages;  // tiles of x: (chunk, kTile) or its transpose
  int codes;   // (kGroup, chunk) operands; bfloat16: high parts, low parts. The
               // sums of a block, (kGroup, chunk) floats, when codes are done
  int grads;   // (kGroup, chunk) operands
  int slots;   // kSlots of (kGroup, kTile): shares of a product
  int products, grad_products;  // maps of codewords . x and gradients . x
  int assignment, grad_logits;  // maps of operands, in place of these
  int grad_distances;           // map of operands: -2 s_k dl_k
  int mean;                     // (chunk)
  int shares, squares, slope;   // (kWarps, kTile), (kTile), (kTile)
  int norms, scale, offsets, mass, pull, spread;  // (codes)
  int bytes;                    // of all
};

// What a launch is given, and device memory beside arguments and results.
struct Problem {
  View x, grad_x;
  const float *codewords, *scale, *grad;
  float *encodings, *grad_codewords, *grad_scale;

  int batch, channels, features, codes;
  int padded_channels, padded_codes;  // whole chunks, whole groups
  int chunk, chunk_bits;              // 128, 256 or 512, and its logarithm
  int chunks, groups;                 // how many of each
  int stages, blocks, cluster;
  int tiles, teams;                   // tiles of an image; teams of blocks
  bool channels_are_rows;    // of a tile of x; else its columns
  bool copy_x, copy_grad_x;  // in 16-byte pieces
  Layout at;

  float* mean;     // (channels) of the codewords, or zeros
  char* centred;   // (codes, channels) of operands; bfloat16: high, then low
  float* norms;    // (codes) squared
  char* grads;     // (batch, codes, channels) of operands
  float* offsets;  // (batch, codes) gradient . codeword
  // Of each part of an image that a team has: see part_of_team.
  float* partial;  // (parts, codes, channels)
  float* mass;     // (parts, cluster, codes) sum of assignments
  float* pull;     // (parts, cluster, codes) sum of gradients of the logits
  float* spread;   // (parts, cluster, codes) sum of these times |x|^2
};

inline Layout lay_out_shared(const Problem& p, int scalar, int operand,
                             bool backward) {
  Layout at = {};
  auto take = [&at](int64_t count, int size) {
    int here = at.bytes;
    at.bytes += int(round_up(count * size, 128));
    return here;
  };
  int matrix = kGroup * p.chunk, map = p.padded_codes * kTile;
  auto in_place = [&](int products) {
    return operand == 4 ? products : take(map, operand);
  };
  at.stages = take(int64_t(p.stages) * p.chunk * kTile, scalar);
  at.codes = take(matrix, 4);
  at.slots = take(kSlots * kGroup * kTile, 4);
  at.products = take(map, 4);
  at.assignment = in_place(at.products);
  at.mean = take(p.chunk, 4);
  at.shares = take(kWarps * kTile, 4);
  at.squares = take(kTile, 4);
  at.norms = take(p.padded_codes, 4);
  at.scale = take(p.padded_codes, 4);
  at.mass = take(p.padded_codes, 4);
  if (!backward) return at;
  at.grads = take(matrix, operand);
  at.grad_products = take(map, 4);
  at.grad_logits = in_place(at.grad_products);
  at.grad_distances = take(map, operand);
  at.slope = take(kTile, 4);
  at.offsets = take(p.padded_codes, 4);
  at.pull = take(p.padded_codes, 4);
  at.spread = take(p.padded_codes, 4);
  return at;
}

// Lay the workspace out from `base`; returns its end.
inline char* lay_out_workspace(Problem& p, char* base, bool backward) {
  auto take = [&base](int64_t count) {
    char* here = base;
    base += round_up(4 * count, 256);
    return here;
  };
  auto floats = [&take](int64_t count) {
    return reinterpret_cast<float*>(take(count));
  };
  int64_t rows = p.padded_codes, matrix = rows * p.padded_channels;
  int64_t parts = int64_t(p.batch) + p.teams - 1;
  int64_t sums = parts * p.cluster * rows;
  p.mean = floats(p.padded_channels);
  p.centred = take(matrix);
  p.norms = floats(rows);
  p.partial = floats(parts * matrix);
  p.mass = floats(sums);
  if (!backward) return base;
  p.grads = take(p.batch * matrix);
  p.offsets = floats(p.batch * rows);
  p.pull = floats(sums);
  p.spread = floats(sums);
  return base;
}

}  // namespace encstdc
