// A GPU on a processor, as far as the kernels use one: ops/common/device.cuh's names.
//
// Threads are fibers. Each runs until it waits for others. Then the first warp that can
// go on runs, in a random order of the warps: some get as far ahead of others as the
// barriers let them, and a missing barrier gives a wrong result for some seed. Shared
// memory is NaN before and after a block. An asynchronous copy arrives when it is
// awaited, and none may be left over.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)

namespace encstdc {

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

// The same bits as another type.
template <typename To, typename From> To as(From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
inline uint32_t as_bits(float value) { return as<uint32_t>(value); }
inline float as_float(uint32_t bits) { return as<float>(bits); }
inline float to_float(float value) { return value; }
inline float to_float(Float16 value) { return as<_Float16>(value); }
inline float to_float(BFloat16 value) { return as_float(uint32_t(value.bits) << 16); }
template <typename T> T from_float(float value) {
  if constexpr (std::is_same_v<T, Float16>) return as<T>(static_cast<_Float16>(value));
  if constexpr (std::is_same_v<T, BFloat16>) {
    uint32_t bits = as_bits(value);
    bits += 0x7fff + (bits >> 16 & 1);
    return {std::isnan(value) ? uint16_t(0x7fff) : uint16_t(bits >> 16)};
  }
  if constexpr (std::is_same_v<T, float>) return value;
}

namespace emulation {

struct Barrier {
  int expected, arrived = 0, generation = 0;
};
struct Warp {
  Barrier barrier = {32};
  uint64_t words[2][32][6];  // of an exchange and the next one, of each lane
};
struct Block {
  int x, y, threads_left;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<uint4> shared;
  void poison() { std::fill(shared.begin(), shared.end(), uint4{~0u, ~0u, ~0u, ~0u}); }
};
struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Fiber {
  int thread;
  Block* block;
  Barrier* waits_for = nullptr;
  int generation = 0, parity = 0;
  bool done = false;
  jmp_buf state;
  std::unique_ptr<char[]> stack;
  std::deque<std::vector<Copy>> copies{1};  // by group; the last is open
  bool ready() const {
    return !done && (!waits_for || waits_for->generation != generation);
  }
};

inline Fiber* current;
inline std::vector<Block>* cluster;
inline Barrier cluster_barrier;
inline jmp_buf scheduler;
inline std::function<void()> body;  // the kernel with its arguments
inline std::mt19937 order;
inline int multiprocessors = 1, architecture = 90;
constexpr size_t kStackBytes = 1 << 17;

// Aborts where a device would fail, or might.
inline void require(bool condition) {
  if (!condition) std::abort();
}

inline void wait(Barrier& barrier) {
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0, ++barrier.generation;
    return;
  }
  current->waits_for = &barrier, current->generation = barrier.generation;
  if (!_setjmp(current->state)) _longjmp(scheduler, 1);
}

inline void start() {
  body();
  for (auto& group : current->copies) require(group.empty());
  current->done = true;
  if (--current->block->threads_left == 0) current->block->poison();
  _longjmp(scheduler, 1);
}

// Runs a fiber until it waits or ends. Only its first entry needs a context; later ones
// are jumps, which make no system call.
inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  current = &fiber, fiber.waits_for = nullptr;
  if (fiber.stack) _longjmp(fiber.state, 1);
  fiber.stack.reset(new char[kStackBytes]);
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get(), context.uc_stack.ss_size = kStackBytes;
  makecontext(&context, start, 0);
  setcontext(&context);
}

// Resumes the first warp that can go on. Returns whether there is one.
inline bool advance(std::vector<Fiber>& fibers, const std::vector<int>& warps) {
  bool moved = false;
  for (size_t w = 0; w < warps.size() && !moved; ++w) {
    for (int i = 0, turn = int(order() % 32); i < 32; ++i) {
      Fiber& fiber = fibers[32 * warps[w] + (i ^ turn)];
      if (fiber.ready()) resume(fiber), moved = true;
    }
  }
  return moved;
}

// Runs all fibers. Returns whether they ended, rather than wait for each other.
inline bool run(std::vector<Fiber>& fibers) {
  std::vector<int> warps(fibers.size() / 32);
  std::iota(warps.begin(), warps.end(), 0);
  std::shuffle(warps.begin(), warps.end(), order);
  while (advance(fibers, warps)) {
    if (order() % 64 == 0) std::shuffle(warps.begin(), warps.end(), order);
  }
  return std::all_of(fibers.begin(), fibers.end(), [](auto& one) { return one.done; });
}

inline int lane() { return current->thread % 32; }
inline Warp& warp() { return current->block->warps[current->thread / 32]; }

// Gives words to the warp. Returns those of all lanes.
template <size_t COUNT> auto& exchange(const uint64_t (&words)[COUNT]) {
  Warp& own = warp();
  int parity = current->parity ^= 1;
  std::memcpy(own.words[parity][lane()], words, sizeof(words));
  wait(own.barrier);
  return own.words[parity];
}

// sum += left (16 x DEPTH) right (DEPTH x 8), where element(word, k) is a number.
template <int DEPTH, typename F>
void multiply(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2],
              F element) {
  auto& all = exchange({left[0], left[1], left[2], left[3], right[0], right[1]});
  int g = lane() / 4, t = lane() % 4;
  for (int c = 0; c < 4; ++c) {
    for (int k = 0; k < DEPTH; ++k) {
      int half = k / (DEPTH / 2), from = k % (DEPTH / 2) / (DEPTH / 8);
      float a = element(uint32_t(all[4 * g + from][c / 2 + 2 * half]), k);
      float b = element(uint32_t(all[4 * (2 * t + c % 2) + from][4 + half]), k);
      sum[c] += a * b;
    }
  }
}

}  // namespace emulation

inline int thread() { return emulation::current->thread; }
inline int block_x() { return emulation::current->block->x; }
inline int block_y() { return emulation::current->block->y; }
inline void sync_block() { emulation::wait(emulation::current->block->barrier); }
inline void sync_warp() { emulation::wait(emulation::warp().barrier); }
inline void sync_cluster() {
  emulation::require(emulation::architecture >= 90);
  emulation::wait(emulation::cluster_barrier);
}
inline float shuffle_xor(float value, int mask) {
  auto& all = emulation::exchange({as_bits(value)});
  return as_float(uint32_t(all[emulation::lane() ^ mask][0]));
}
inline char* shared_memory() {
  return reinterpret_cast<char*>(emulation::current->block->shared.data());
}
inline const float* in_peer(float* shared, int rank) {
  emulation::require(emulation::architecture >= 90);
  auto offset = reinterpret_cast<char*>(shared) - shared_memory();
  auto peer = reinterpret_cast<char*>((*emulation::cluster)[rank].shared.data());
  return reinterpret_cast<float*>(peer + offset);
}

inline void copy_async(void* shared, const void* global, int bytes) {
  emulation::require(uintptr_t(shared) % 16 == 0 && uintptr_t(global) % 16 == 0);
  emulation::current->copies.back().push_back({shared, global, bytes});
}
inline void prefetch(const void*) {}
inline void commit_copies() { emulation::current->copies.emplace_back(); }
template <int PENDING> void await_copies() {
  auto& copies = emulation::current->copies;
  for (; copies.size() - 1 > PENDING; copies.pop_front()) {
    for (auto& copy : copies.front()) {
      std::memset(copy.to, 0, 16);
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
  }
}

template <bool TRANSPOSE> void load_matrices(uint32_t (&out)[4], const void* row) {
  emulation::require(uintptr_t(row) % 16 == 0);
  auto& rows = emulation::exchange({uintptr_t(row)});
  int g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    auto element = [&](int r, int c) -> uint32_t {
      return reinterpret_cast<const uint16_t*>(rows[8 * i + r][0])[c];
    };
    out[i] = TRANSPOSE ? element(2 * t, g) | element(2 * t + 1, g) << 16
                       : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
  }
}

constexpr bool kTensorCores = true;
inline void multiply_float32(float (&)[4], const float (&)[4], const float (&)[2]) {}
inline void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4],
                          const uint32_t (&right)[2]) {
  auto element = [](uint32_t word, int) { return as_float(word & 0xffffe000u); };
  emulation::multiply<8>(sum, left, right, element);
}
inline void multiply_bf16(float (&sum)[4], const uint32_t (&left)[4],
                          const uint32_t (&right)[2]) {
  emulation::multiply<16>(sum, left, right, [](uint32_t word, int k) {
    return as_float(k % 2 ? word & 0xffff0000u : word << 16);
  });
}

template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), const LaunchConfig& config,
                   Arguments... arguments) {
  using namespace emulation;
  body = [&] { kernel(Parameters(arguments)...); };
  int size = config.cluster_size, threads = config.threads;
  for (int i = 0; i < config.blocks_y * config.blocks_x / size; ++i) {
    int y = i * size / config.blocks_x, x = i * size % config.blocks_x;
    std::vector<Block> blocks(size);
    std::vector<Fiber> fibers(size * threads);
    cluster = &blocks, cluster_barrier = {size * threads};
    for (int j = 0; j < size * threads; ++j) {
      fibers[j].thread = j % threads, fibers[j].block = &blocks[j / threads];
    }
    for (Block& block : blocks) {
      block.x = x++, block.y = y, block.threads_left = threads;
      block.barrier = {threads};
      block.warps.resize(threads / 32);
      block.shared.resize(config.shared_bytes / 16 + 1);
      block.poison();
    }
    if (!run(fibers)) return "threads wait for each other";
  }
  return nullptr;
}

// Clusters lie within groups of multiprocessors, whose sizes differ.
template <typename... Parameters>
int active_blocks(void (*)(Parameters...), const LaunchConfig& config) {
  int blocks = 0;
  if (emulation::architecture < 90) return 0;
  const int sizes[] = {18, 18, 18, 16, 16, 16, 16, 14};
  for (int i = 0, left = emulation::multiprocessors; left > 0; left -= sizes[i++ % 8]) {
    int size = std::min(left, sizes[i % 8]);
    blocks += size / config.cluster_size * config.cluster_size;
  }
  return blocks;
}

}  // namespace encstdc
