// The Encoding operator, forward and backward, fused: x is read once.
//
// A block walks over tiles of 32 features, from image to image. Each warp owns an
// eighth of the channels: it multiplies them with the codewords, the block adds
// the warps' shares up and turns them into assignments, and each warp then
// multiplies these with its own channels, still in shared memory. README.md has
// the plan, mmseg_encstdc/ops/tiles.py the formulas, and
// mmseg_encstdc/ops/twin.py is the plain twin.
//
// Where channels or codewords exceed what fits, they come in chunks and groups:
// then a tile is read again (from the second-level cache), and the sums of a
// block are kept in device memory.
#pragma once

#include "copies.cuh"

namespace encstdc {

// With ROWS, channels are the rows of a tile of x and features its columns. WHOLE:
// one chunk and one group, which stay in shared memory, and their sums in
// registers.
template <class Core, bool ROWS, bool BACKWARD, bool WHOLE>
struct Block {
  using Scalar = typename Core::Scalar;
  using Operand = typename Core::Operand;
  using Right = typename Core::Right;
  using FeatureTile = Tile<Scalar, ROWS ? kTile : 0>;
  using Map = Tile<float, kTile>;            // (codes, features)
  using OperandMap = Tile<Operand, kTile>;   // likewise
  // Codewords of a group by channels of a warp, as fragments.
  using Sums = float[2][8][4];

  const Problem& p;
  int warp, g, t;      // lane l is (g, t) = (l / 4, l % 4)
  int team, rank;      // of the block: teams of p.cluster blocks
  int image, part;     // what the team is at: see walk
  int slice, channel;  // channels of a warp, and its first within a chunk

  __device__ Block(const Problem& problem) : p(problem) {
    warp = thread() / 32, g = thread() % 32 / 4, t = thread() % 4;
    team = block_x() / p.cluster, rank = block_x() % p.cluster;
    slice = p.chunk / kWarps, channel = warp * slice;
  }

  template <typename T>
  __device__ static T* shared(int offset) {
    return reinterpret_cast<T*>(shared_memory() + offset);
  }
  __device__ static float* floats(int offset) { return shared<float>(offset); }
  __device__ static Map map(int offset) { return {floats(offset)}; }
  __device__ static OperandMap operands(int offset) {
    return {shared<Operand>(offset)};
  }
  __device__ typename Core::Codes codes() const {
    return Core::codes_at(shared<Operand>(p.at.codes), p.chunk, kGroup);
  }
  __device__ Tile<Operand> grads() const {
    return {shared<Operand>(p.at.grads), p.chunk};
  }
  __device__ FeatureTile stage(int index) const {
    return {shared<Scalar>(p.at.stages) + index * p.chunk * kTile, p.chunk};
  }

  __device__ void load_constants() {
    for (int k = thread(); k < p.padded_codes; k += kThreads) {
      floats(p.at.norms)[k] = p.norms[k];
      floats(p.at.scale)[k] = k < p.codes ? p.scale[k] : 0;
      floats(p.at.mass)[k] = 0;
      if (BACKWARD) {
        floats(p.at.offsets)[k] = p.offsets[image * p.padded_codes + k];
        floats(p.at.pull)[k] = floats(p.at.spread)[k] = 0;
      }
    }
  }

  // Codewords (and gradients) of a group, channels of a chunk.
  __device__ void load_codes(int chunk, int group) {
    int64_t place = int64_t(group) * kGroup * p.padded_channels +
                    int64_t(chunk) * p.chunk;
    int64_t matrix = int64_t(p.padded_codes) * p.padded_channels;
    auto load = [&](const Tile<Operand>& tile, const Operand* from) {
      Part<const Operand> part = {from, p.padded_channels, 1, kGroup, p.chunk};
      fill(tile, part, kGroup, p.chunk_bits, true);
    };
    auto centred = reinterpret_cast<const Operand*>(p.centred);
    load(codes().tile, centred + place);
    if constexpr (Core::kCodeParts == 2) {
      load(codes().rest, centred + matrix + place);
    }
    if (BACKWARD) {
      auto from = reinterpret_cast<const Operand*>(p.grads);
      load(grads(), from + image * matrix + place);
    }
  }

  __device__ void load_mean(int chunk) {
    for (int d = thread(); d < p.chunk; d += kThreads) {
      floats(p.at.mean)[d] = p.mean[chunk * p.chunk + d];
    }
  }

  __device__ void load_features(int tile, int chunk, int index) {
    auto from = part_of<ROWS, Scalar>(p.x, p, image, chunk * p.chunk,
                                      tile * kTile);
    fill(stage(index), from, ROWS ? p.chunk : kTile,
         ROWS ? kTileBits : p.chunk_bits, p.copy_x);
  }

  __device__ void fetch_features(int tile) {
    auto from = part_of<ROWS, Scalar>(p.x, p, image, 0, tile * kTile);
    fetch_ahead(from, ROWS ? p.chunk : kTile, ROWS ? kTileBits : p.chunk_bits);
  }

  __device__ const float* mean() const {
    return Core::kCentred ? floats(p.at.mean) : nullptr;
  }

  // --- Products of codewords (or gradients) and features ---------------------

  // This warp's share of a group's products with all features of a tile; adds
  // its share of |x|^2 to `squares`.
  template <typename Left>
  __device__ void multiply_share(Left left, FeatureTile x,
                                 float (&sum)[2][4][4], float (&squares)[4]) {
#pragma unroll 1
    for (int k = 0; k < slice; k += Core::kDepth) {
      auto top = left(0, channel + k), bottom = left(16, channel + k);
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        Right right[2];
        Core::template right<ROWS, true>(right, x, channel + k, 8 * j, mean());
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          squares[j + i] += Core::square(right[i]);
          Core::multiply(sum[0][j + i], top, right[i]);
          Core::multiply(sum[1][j + i], bottom, right[i]);
        }
      }
    }
  }

  // Where fragment [i][j] of a (group, features) product has its columns.
  __device__ float* slot(int index, int i, int j, int half) {
    int block = index * kGroup + 16 * i + 8 * half;
    return map(p.at.slots).at(block, g, 8 * j + 2 * t);
  }

  // Add the warps' shares to rows `row` ... of `out`, or set these.
  __device__ void add_shares(float (&sum)[2][4][4], const Map& out, int row,
                             bool add) {
    sync_block();  // the slots are free
    for (int half_of_warps = 1; half_of_warps >= 0; --half_of_warps) {
      if (warp / kSlots == half_of_warps) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              float* place = slot(warp % kSlots, i, j, c / 2) + c % 2;
              *place = half_of_warps ? sum[i][j][c] : sum[i][j][c] + *place;
            }
          }
        }
      }
      sync_block();
    }
    int column = 4 * warp + t;
    for (int k = g; k < kGroup; k += 8) {
      float total = add ? *out.at(row + k, column) : 0;
      for (int i = 0; i < kSlots; ++i) {
        total += *map(p.at.slots).at(i * kGroup + k, column);
      }
      *out.at(row + k, column) = total;
    }
  }

  __device__ void add_squares(float (&squares)[4], bool add) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float share = squares[j] + shuffle_xor(squares[j], 1);
      share += shuffle_xor(share, 2);
      float* place = floats(p.at.shares) + warp * kTile + 8 * j + g;
      if (t == 0) *place = add ? *place + share : share;
    }
  }

  __device__ void multiply_codes(FeatureTile x, int chunk,
                                 int group) {
    float sum[2][4][4] = {}, squares[4] = {};
    multiply_share(
        [&](int row, int depth) {
          return Core::template codes<ROWS>(codes(), row, depth);
        },
        x, sum, squares);
    if (group == 0) add_squares(squares, chunk > 0);
    add_shares(sum, map(p.at.products), group * kGroup, chunk > 0);
    if constexpr (BACKWARD) {
      float grad_sum[2][4][4] = {}, unused[4] = {};
      multiply_share(
          [&](int row, int depth) {
            return Core::template left<false, ROWS>(grads(), row, depth);
          },
          x, grad_sum, unused);
      add_shares(grad_sum, map(p.at.grad_products), group * kGroup, chunk > 0);
    }
  }

  // --- Assignments -----------------------------------------------------------

  // Over the eight lanes that share a feature.
  template <typename F>
  __device__ static float reduce(float value, F join) {
    for (int lanes = 4; lanes < 32; lanes *= 2) {
      value = join(value, shuffle_xor(value, lanes));
    }
    return value;
  }
  __device__ static float total(float value) {
    return reduce(value, [](float a, float b) { return a + b; });
  }

  // Products to assignments (and gradients of logits and distances): a lane has
  // every eighth codeword of one feature.
  __device__ void assign(int features) {
    int n = 4 * warp + t;
    bool there = n < features;
    float square = 0;
    for (int w = 0; w < kWarps; ++w) square += floats(p.at.shares)[w * kTile + n];
    float highest = -INFINITY;
    for (int k = g; k < p.codes; k += 8) {
      float* logit = map(p.at.products).at(k, n);
      *logit = floats(p.at.scale)[k] * (square - 2 * *logit + floats(p.at.norms)[k]);
      highest = fmaxf(highest, *logit);
    }
    highest = reduce(highest, [](float a, float b) { return fmaxf(a, b); });
    float sum = 0;
    for (int k = g; k < p.codes; k += 8) {
      float* logit = map(p.at.products).at(k, n);
      *logit = expf(*logit - highest);
      sum += *logit;
    }
    float inverse = 1 / total(sum);
    float mean_grad = 0;  // sum_k A_k dA_k
    if (BACKWARD) {
      for (int k = g; k < p.codes; k += 8) {
        float* grad = map(p.at.grad_products).at(k, n);
        *grad -= floats(p.at.offsets)[k];
        mean_grad += *map(p.at.products).at(k, n) * inverse * *grad;
      }
      mean_grad = total(mean_grad);
    }
    float slope = 0;
    for (int k = g; k < p.padded_codes; k += 8) {
      bool counts = there && k < p.codes;
      float assigned = counts ? *map(p.at.products).at(k, n) * inverse : 0;
      if (BACKWARD) {
        float grad = *map(p.at.grad_products).at(k, n);
        float logit = counts ? assigned * (grad - mean_grad) : 0;
        auto steep = from_float<Operand>(-2 * floats(p.at.scale)[k] * logit);
        *operands(p.at.grad_logits).at(k, n) = from_float<Operand>(logit);
        *operands(p.at.grad_distances).at(k, n) = steep;
        slope -= to_float(steep);
      }
      *operands(p.at.assignment).at(k, n) = from_float<Operand>(assigned);
    }
    if (BACKWARD) {
      slope = total(slope);
      if (g == 0) floats(p.at.slope)[n] = slope;
    }
    if (g == 0) floats(p.at.squares)[n] = square;
  }

  // Sums over the features of a tile: eight lanes to a codeword.
  __device__ void add_rows() {
    int eighth = thread() % 8;
    auto join = [](float value) {
      for (int lanes = 1; lanes < 8; lanes *= 2) {
        value += shuffle_xor(value, lanes);
      }
      return value;
    };
    for (int k = thread() / 8; k < p.padded_codes; k += kThreads / 8) {
      float mass = 0, pull = 0, spread = 0;
      for (int i = 0; i < kTile; i += 8) {
        int n = i + eighth;
        mass += to_float(*operands(p.at.assignment).at(k, n));
        if (BACKWARD) {
          float logit = to_float(*operands(p.at.grad_logits).at(k, n));
          pull += logit, spread += logit * floats(p.at.squares)[n];
        }
      }
      mass = join(mass);
      if (BACKWARD) pull = join(pull), spread = join(spread);
      if (eighth) continue;
      floats(p.at.mass)[k] += mass;
      if (BACKWARD) floats(p.at.pull)[k] += pull, floats(p.at.spread)[k] += spread;
    }
  }

  // --- Products of assignments and features ----------------------------------

  // sums += map (group, features) x (features, channels of this warp).
  __device__ void encode(const OperandMap& map, int group,
                         FeatureTile x, Sums& sums) {
#pragma unroll 1
    for (int k = 0; k < kTile; k += Core::kDepth) {
      auto top = Core::template left<false, !ROWS>(map, group * kGroup, k);
      auto bottom =
          Core::template left<false, !ROWS>(map, group * kGroup + 16, k);
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        if (8 * j >= slice) break;
        Right right[2];
        Core::template right<!ROWS, false>(right, x, k, channel + 8 * j, mean());
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          Core::multiply(sums[0][j + i], top, right[i]);
          Core::multiply(sums[1][j + i], bottom, right[i]);
        }
      }
    }
  }

  // The gradient of x: out (32 channels of this warp, features) +=
  // codes^T (channels, group) x map (group, features).
  __device__ void pull_features(const Tile<Operand>& codes,
                                const OperandMap& map, int group, int first,
                                float (&out)[2][4][4]) {
#pragma unroll 1
    for (int k = 0; k < kGroup; k += Core::kDepth) {
      Right right[2][2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        Core::template right<true, true>(right[j], map, group * kGroup + k,
                                         16 * j, nullptr);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (first + 16 * i >= slice) break;
        auto left = Core::template left<true, true>(
            codes, channel + first + 16 * i, k);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          Core::multiply(out[i][j], left, right[j / 2][j % 2]);
        }
      }
    }
  }

  // Complete the gradient of 32 channels, in the place of x.
  __device__ void replace_features(float (&out)[2][4][4], FeatureTile x,
                                   int first) {
    float slopes[4][2];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      slopes[j][0] = floats(p.at.slope)[8 * j + 2 * t];
      slopes[j][1] = floats(p.at.slope)[8 * j + 2 * t + 1];
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (first + 16 * i >= slice) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int d = channel + first + 16 * i + 8 * half;
        float less = Core::kCentred ? floats(p.at.mean)[d + g] : 0;
        auto complete = [&](Scalar value, int j, int c) {
          return from_float<Scalar>(out[i][j][2 * half + c] +
                                    slopes[j][c] * (to_float(value) - less));
        };
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if constexpr (ROWS) {
            struct alignas(2 * sizeof(Scalar)) Pair {
              Scalar first, second;
            };
            auto place = reinterpret_cast<Pair*>(x.at(d, g, 8 * j + 2 * t));
            Pair pair = *place;
            *place = {complete(pair.first, j, 0), complete(pair.second, j, 1)};
          } else {
            for (int c = 0; c < 2; ++c) {
              Scalar* place = x.at(8 * j, 2 * t + c, d + g);
              *place = complete(*place, j, c);
            }
          }
        }
      }
    }
  }

  __device__ void write_features(FeatureTile x, int tile, int chunk) {
    sync_warp();
    auto to = part_of<ROWS, Scalar>(p.grad_x, p, image, chunk * p.chunk,
                                    tile * kTile);
    if (ROWS) {
      write_out(x, to, channel, 0, slice, kTileBits, p.copy_grad_x);
    } else {
      write_out(x, to, 0, channel, kTile, p.chunk_bits - kWarpBits,
                p.copy_grad_x);
    }
  }

  // --- Sums of a block -------------------------------------------------------

  // f(sum, place): every sum of this lane, with its place in a matrix of rows of
  // `columns`, which `base` is the group and this warp's first channel of.
  template <typename F>
  __device__ void each_sum(Sums& sums, float* base, int columns, F f) {
    base += g * columns + 2 * t;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (8 * j >= slice) break;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          int k = 16 * i + c / 2 * 8;
          f(sums[i][j][c], base[k * columns + 8 * j + c % 2]);
        }
      }
    }
  }

  // Where the sums of a group and a chunk go in device memory.
  __device__ float* partial_at(int chunk, int group) {
    int64_t row = int64_t(part) * p.padded_codes + group * kGroup;
    return p.partial + row * p.padded_channels + chunk * p.chunk + channel;
  }

  // Blocks of a cluster add their sums up, each a part, in order of rank.
  __device__ void add_cluster(Sums& sums) {
    each_sum(sums, floats(p.at.codes) + channel, p.chunk,
             [](float& sum, float& place) { place = sum; });
    sync_cluster();
    int matrix = kGroup * p.chunk, share = matrix / p.cluster;
    int first = rank * share;
    for (int i = first + thread(); i < first + share; i += kThreads) {
      float sum = 0;
      for (int peer = 0; peer < p.cluster; ++peer) {
        sum += of_peer(floats(p.at.codes), peer)[i];
      }
      p.partial[int64_t(part) * matrix + i] = sum;
    }
    sync_cluster();  // no block leaves while others read its sums
  }

  __device__ void write_rows() {
    int64_t place = (int64_t(part) * p.cluster + rank) * p.padded_codes;
    for (int k = thread(); k < p.padded_codes; k += kThreads) {
      p.mass[place + k] = floats(p.at.mass)[k];
      if (BACKWARD) {
        p.pull[place + k] = floats(p.at.pull)[k];
        p.spread[place + k] = floats(p.at.spread)[k];
      }
    }
  }

  // --- The walk over the tiles -----------------------------------------------

  // Where not all is in memory: features of a chunk, codewords of a group.
  __device__ void reload_features(int tile, int chunk) {
    if (WHOLE || p.chunks == 1) return;
    sync_block();
    load_features(tile, chunk, 0);
    load_mean(chunk);
    commit_copies();
    await_copies<0>();
    sync_block();
  }
  __device__ void reload_codes(int chunk, int group) {
    if (WHOLE) return;
    sync_block();
    load_codes(chunk, group);
    commit_copies();
    await_copies<0>();
    sync_block();
  }

  __device__ void add_encodings(FeatureTile x, Sums& kept, int chunk, int group,
                                bool first) {
    auto map = operands(BACKWARD ? p.at.grad_logits : p.at.assignment);
    if constexpr (WHOLE) {
      encode(map, group, x, kept);
    } else {
      Sums sums = {};
      encode(map, group, x, sums);
      each_sum(sums, partial_at(chunk, group), p.padded_channels,
               [first](float& sum, float& partial) {
                 partial = first ? sum : partial + sum;
               });
    }
  }

  __device__ void grad_features(FeatureTile x, int tile, int chunk) {
#pragma unroll 1
    for (int first = 0; first < slice; first += 32) {
      float out[2][4][4] = {};
      for (int group = 0; group < p.groups; ++group) {
        reload_codes(chunk, group);
        pull_features(grads(), operands(p.at.assignment), group, first, out);
        pull_features(codes().tile, operands(p.at.grad_distances), group, first,
                      out);
      }
      sync_warp();  // all lanes are done with x
      replace_features(out, x, first);
    }
    write_features(x, tile, chunk);
  }

  __device__ void walk_tile(int tile, FeatureTile x, Sums& sums, bool first) {
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      reload_features(tile, chunk);
      for (int group = 0; group < p.groups; ++group) {
        reload_codes(chunk, group);
        multiply_codes(x, chunk, group);
      }
    }
    assign(p.features - tile * kTile);  // of what this thread added up
    sync_block();
    add_rows();
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      reload_features(tile, chunk);
      for (int group = 0; group < p.groups; ++group) {
        add_encodings(x, sums, chunk, group, first);
      }
      if constexpr (BACKWARD) grad_features(x, tile, chunk);
    }
  }

  // Tiles first ... last - 1 of an image, and what they add up to.
  __device__ void walk_part(int first, int last) {
    bool ahead = WHOLE || p.chunks == 1;  // a tile is loaded before its turn
    load_constants();
    if (WHOLE) load_codes(0, 0);
    load_mean(0);
    if (ahead && first < last) load_features(first, 0, 0);
    commit_copies();
    Sums sums = {};
    for (int tile = first; tile < last; ++tile) {
      bool more = tile + 1 < last;
      int index = p.stages == 2 ? (tile - first) & 1 : 0;
      if (p.stages == 2) {
        if (more) load_features(tile + 1, 0, 1 - index);
        commit_copies();
        await_copies<1>();
      } else {
        if (more && ahead && p.copy_x) fetch_features(tile + 1);
        await_copies<0>();
      }
      sync_block();
      walk_tile(tile, stage(index), sums, tile == first);
      sync_block();
      if (p.stages == 1 && ahead && more) {
        load_features(tile + 1, 0, 0);
        commit_copies();
      }
    }
    await_copies<0>();  // where there was no tile
    sync_block();       // codes are done with
    write_rows();
    if (!WHOLE) return;
    if (p.cluster > 1) {
      add_cluster(sums);
    } else {
      each_sum(sums, partial_at(0, 0), p.padded_channels,
               [](float& sum, float& partial) { partial = sum; });
    }
  }

  // A team has a run of the tiles of all images. Where it crosses from an image to
  // the next a new part begins, which the blocks of the team divide.
  __device__ void walk() {
    int64_t tiles = int64_t(p.batch) * p.tiles;
    int64_t next = tiles * team / p.teams, end = tiles * (team + 1) / p.teams;
    while (next < end) {
      image = int(next / p.tiles), part = team + image;
      int first = int(next - int64_t(image) * p.tiles);
      int64_t rest = end - next;
      int count = rest < p.tiles - first ? int(rest) : p.tiles - first;
      sync_block();  // the part before is done with
      walk_part(first + int(int64_t(count) * rank / p.cluster),
                first + int(int64_t(count) * (rank + 1) / p.cluster));
      next += count;
    }
  }
};

template <class Core, bool ROWS, bool BACKWARD, bool WHOLE>
__global__ void __launch_bounds__(kThreads, 1)
    encode_kernel(const __grid_constant__ Problem p) {
  Block<Core, ROWS, BACKWARD, WHOLE>(p).walk();
}

}  // namespace encstdc
