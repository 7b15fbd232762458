// A GPU on a processor, as far as the kernels use one: ops/device.cuh's names.
//
// Threads are fibers that run one at a time, each until it waits for others. Of
// the warps that can go on it is always the first in an order drawn at random
// that does, so that some are as far ahead of others as the barriers let them: a
// missing barrier shows as a wrong result for some seed. Shared memory is NaN
// before a block and after it; an asynchronous copy arrives when it is awaited,
// as late as may be, and none may be left over.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __grid_constant__
#define __host__
#define __launch_bounds__(...)

namespace encstdc {

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float to_float(float value) { return value; }
inline float to_float(Float16 value) {
  _Float16 half;
  std::memcpy(&half, &value, 2);
  return float(half);
}
inline float to_float(BFloat16 value) { return as_float(uint32_t(value.bits) << 16); }

template <typename T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline Float16 from_float<Float16>(float value) {
  auto half = static_cast<_Float16>(value);
  Float16 out;
  std::memcpy(&out, &half, 2);
  return out;
}
template <>
inline BFloat16 from_float<BFloat16>(float value) {
  if (std::isnan(value)) return {0x7fff};
  uint32_t bits = as_bits(value);
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace emulation {

struct Barrier {
  int expected = 0, arrived = 0, generation = 0;
};

struct Warp {
  Barrier barrier;
  uint32_t words[2][32][6];
  const void* rows[2][32];
};

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

struct Block {
  int x = 0, y = 0, rank = 0, threads_left = 0;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<uint4> shared;
};

struct Fiber {
  int thread = 0;
  Block* block = nullptr;
  Barrier* waits_for = nullptr;
  int generation = 0, parity = 0;
  bool started = false, done = false;
  ucontext_t context;
  jmp_buf state;
  std::unique_ptr<char[]> stack;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
};

inline Fiber* current = nullptr;
inline std::vector<Block>* cluster = nullptr;
inline Barrier cluster_barrier;
inline jmp_buf scheduler;
inline ucontext_t main_context;
inline std::function<void()> body;
inline std::mt19937 order;
inline int processors = 1;

inline void wait(Barrier& barrier) {
  Fiber* self = current;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  self->waits_for = &barrier;
  self->generation = barrier.generation;
  if (!_setjmp(self->state)) _longjmp(scheduler, 1);
}

inline void start() {
  body();
  for (auto& group : current->groups) {
    if (!group.empty()) std::abort();  // it might arrive at any time
  }
  if (!current->open.empty()) std::abort();
  current->done = true;
  _longjmp(scheduler, 1);
}

inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  current = &fiber;
  if (fiber.started) _longjmp(fiber.state, 1);
  fiber.started = true;
  fiber.stack.reset(new char[1 << 17]);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = 1 << 17;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, start, 0);
  swapcontext(&main_context, &fiber.context);
}

inline bool ready(const Fiber& fiber) {
  if (fiber.done) return false;
  return !fiber.waits_for || fiber.waits_for->generation != fiber.generation;
}

inline void poison(Block& block) {
  std::fill(block.shared.begin(), block.shared.end(), uint4{~0u, ~0u, ~0u, ~0u});
}

// Let every thread of a warp that can go on do so; whether any could.
inline bool advance(std::vector<Fiber>& fibers, int warp) {
  bool moved = false;
  int first = 32 * warp, turn = int(order() % 32);
  for (int i = 0; i < 32; ++i) {
    Fiber& fiber = fibers[first + (i ^ turn)];
    if (!ready(fiber)) continue;
    moved = true;
    fiber.waits_for = nullptr;
    resume(fiber);
    if (fiber.done && --fiber.block->threads_left == 0) poison(*fiber.block);
  }
  return moved;
}

// Run until all are done; false where the rest wait for each other.
inline bool run(std::vector<Fiber>& fibers) {
  std::vector<int> warps(fibers.size() / 32);
  for (size_t i = 0; i < warps.size(); ++i) warps[i] = int(i);
  auto move_first = [&] {
    if (order() % 64 == 0) std::shuffle(warps.begin(), warps.end(), order);
    for (int warp : warps) {
      if (advance(fibers, warp)) return true;
    }
    return false;
  };
  std::shuffle(warps.begin(), warps.end(), order);
  while (move_first()) {
  }
  return std::all_of(fibers.begin(), fibers.end(),
                     [](const Fiber& fiber) { return fiber.done; });
}

inline Warp& warp() { return current->block->warps[current->thread / 32]; }
inline int lane() { return current->thread % 32; }

// Give words to the warp; returns those of all lanes.
template <size_t COUNT>
auto& exchange(const uint32_t (&words)[COUNT]) {
  Warp& mine = warp();
  int parity = current->parity ^= 1;
  std::memcpy(mine.words[parity][lane()], words, sizeof(words));
  wait(mine.barrier);
  return mine.words[parity];
}

}  // namespace emulation

// --- Threads -----------------------------------------------------------------

inline int thread() { return emulation::current->thread; }
inline int block_x() { return emulation::current->block->x; }
inline int block_y() { return emulation::current->block->y; }
inline void sync_block() { emulation::wait(emulation::current->block->barrier); }
inline void sync_warp() { emulation::wait(emulation::warp().barrier); }
inline float shuffle_xor(float value, int lanes) {
  uint32_t word[] = {as_bits(value)};
  return as_float(emulation::exchange(word)[emulation::lane() ^ lanes][0]);
}
inline char* shared_memory() {
  return reinterpret_cast<char*>(emulation::current->block->shared.data());
}
inline void sync_cluster() { emulation::wait(emulation::cluster_barrier); }
inline const float* of_peer(float* shared, int rank) {
  auto offset = reinterpret_cast<char*>(shared) - shared_memory();
  auto base = reinterpret_cast<char*>((*emulation::cluster)[rank].shared.data());
  return reinterpret_cast<float*>(base + offset);
}

// --- Copies to shared memory -------------------------------------------------

inline void copy_async(void* shared, const void* global, int bytes) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 ||
      reinterpret_cast<uintptr_t>(global) % 16) {
    std::abort();  // as the device would
  }
  emulation::current->open.push_back({shared, global, bytes});
}
inline void commit_copies() {
  auto& self = *emulation::current;
  self.groups.push_back(std::move(self.open));
  self.open.clear();
}
inline void prefetch(const void*) {}
template <int LATER>
void await_copies() {
  auto& groups = emulation::current->groups;
  while (groups.size() > LATER) {
    for (auto& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

// --- Tensor cores ------------------------------------------------------------

template <bool TRANSPOSE>
void load_matrices(uint32_t (&out)[4], const void* row) {
  auto& mine = emulation::warp();
  int parity = emulation::current->parity ^= 1, lane = emulation::lane();
  if (reinterpret_cast<uintptr_t>(row) % 16) std::abort();
  mine.rows[parity][lane] = row;
  emulation::wait(mine.barrier);
  int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    auto element = [&](int r, int c) -> uint32_t {
      return static_cast<const uint16_t*>(mine.rows[parity][8 * i + r])[c];
    };
    out[i] = TRANSPOSE ? element(2 * t, g) | element(2 * t + 1, g) << 16
                       : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
  }
}

constexpr bool kTensorCores = true;
inline void multiply_float32(float (&)[4], const float (&)[4],
                             const float (&)[2]) {
  std::abort();
}

inline void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4],
                          const uint32_t (&right)[2]) {
  uint32_t words[] = {left[0], left[1], left[2], left[3], right[0], right[1]};
  auto& all = emulation::exchange(words);
  auto cut = [](uint32_t bits) { return as_float(bits & 0xffffe000u); };
  int g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int c = 0; c < 4; ++c) {
    for (int k = 0; k < 8; ++k) {
      float a = cut(all[4 * g + k % 4][c / 2 + k / 4 * 2]);
      float b = cut(all[4 * (2 * t + c % 2) + k % 4][4 + k / 4]);
      sum[c] += a * b;
    }
  }
}

inline void multiply_bf16(float (&sum)[4], const uint32_t (&left)[4],
                          const uint32_t (&right)[2]) {
  uint32_t words[] = {left[0], left[1], left[2], left[3], right[0], right[1]};
  auto& all = emulation::exchange(words);
  auto half = [](uint32_t pair, int k) {
    return as_float(k % 2 ? pair & 0xffff0000u : pair << 16);
  };
  int g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int c = 0; c < 4; ++c) {
    for (int k = 0; k < 16; ++k) {
      int from = k % 8 / 2;
      float a = half(all[4 * g + from][c / 2 + k / 8 * 2], k);
      float b = half(all[4 * (2 * t + c % 2) + from][4 + k / 8], k);
      sum[c] += a * b;
    }
  }
}

// --- Launches ----------------------------------------------------------------

struct Launch {
  int x, y, threads, cluster, bytes;
  void* stream;
};

template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), const Launch& how,
                   Arguments... arguments) {
  using namespace emulation;
  for (int y = 0; y < how.y; ++y) {
    for (int first = 0; first < how.x; first += how.cluster) {
      std::vector<Block> blocks(how.cluster);
      std::vector<Fiber> fibers(how.cluster * how.threads);
      cluster = &blocks;
      cluster_barrier = {int(fibers.size())};
      for (int rank = 0; rank < how.cluster; ++rank) {
        Block& block = blocks[rank];
        block.x = first + rank, block.y = y, block.rank = rank;
        block.barrier = {how.threads};
        block.warps.resize(how.threads / 32);
        for (auto& warp : block.warps) warp.barrier = {32};
        block.threads_left = how.threads;
        block.shared.resize(how.bytes / 16 + 1);
        poison(block);
        for (int i = 0; i < how.threads; ++i) {
          fibers[rank * how.threads + i].thread = i;
          fibers[rank * how.threads + i].block = &block;
        }
      }
      body = [&] { kernel(Parameters(arguments)...); };
      if (!run(fibers)) return "threads wait for each other";
    }
  }
  return nullptr;
}

// Clusters do not cross the groups of processors, which differ in size.
template <typename... Parameters>
int active_blocks(void (*)(Parameters...), const Launch& how) {
  int blocks = 0;
  const int sizes[] = {18, 18, 18, 16, 16, 16, 16, 14};
  for (int i = 0, left = emulation::processors; left > 0; ++i) {
    int size = std::min(left, sizes[i % 8]);
    blocks += size / how.cluster * how.cluster, left -= size;
  }
  return blocks;
}

}  // namespace encstdc
