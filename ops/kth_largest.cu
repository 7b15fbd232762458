// The k-th largest of many floats, exactly, by digits: three passes over all
// values count those that begin like the one sought, by their next digit.
#include "kth_largest.h"

#include "device.cuh"

namespace encstdc {
namespace {

constexpr int kSelectThreads = 256;
constexpr int kDigits = 3;
constexpr int kBins = 2048;            // of a digit of 11 bits; the last has 10
constexpr int kLoads = 8;              // of a thread, at once

// What the passes leave for each other.
struct Selection {
  uint32_t counts[kDigits][kBins];     // values by their digit
  struct {
    uint32_t prefix, k;                // digits so far; which of those that have them
  } found[kDigits];
};

// Whole numbers in the order of the floats, with one zero, and NaN at the end.
__device__ uint32_t key_of(float value) {
  if (value != value) return ~0u;
  uint32_t bits = as_bits(value + 0.0f);  // -0 becomes 0
  return bits >> 31 ? ~bits : bits | 1u << 31;
}
__device__ float value_of(uint32_t key) {
  return as_float(key >> 31 ? key & ~(1u << 31) : ~key);
}

__device__ int shift_of(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }

// The bin in which the k-th largest is, and how many bins above it hold. Every
// block finds it for itself, so that no block waits for another.
__device__ void select_bin(const uint32_t* counts, uint32_t k, uint32_t* shares,
                           uint32_t& bin, uint32_t& rest) {
  constexpr int kOwn = kBins / kSelectThreads;
  int first = kBins - kOwn * (thread() + 1);  // thread 0 has the largest
  uint32_t own = 0;
  for (int i = 0; i < kOwn; ++i) own += counts[first + i];
  shares[thread()] = own;
  sync_block();
  uint32_t* groups = shares + kSelectThreads;  // of 32 threads
  if (thread() % 32 == 0) {
    uint32_t sum = 0;
    for (int i = 0; i < 32; ++i) sum += shares[thread() + i];
    groups[thread() / 32] = sum;
  }
  sync_block();
  uint32_t above = 0;
  for (int i = 0; i < thread() / 32; ++i) above += groups[i];
  for (int i = thread() & ~31; i < thread(); ++i) above += shares[i];
  sync_block();
  if (above < k && k - above <= own) {
    for (int i = kOwn - 1; i >= 0; --i) {
      uint32_t count = counts[first + i];
      if (k - above <= count) {
        shares[0] = first + i, shares[1] = k - above;
        break;
      }
      above += count;
    }
  }
  sync_block();
  bin = shares[0], rest = shares[1];
  sync_block();
}

// The digits before `digit`, and which of the values that have them is sought.
__device__ void find_prefix(Selection& selection, int digit, uint32_t k,
                            uint32_t* shares, uint32_t& prefix, uint32_t& rest) {
  prefix = 0, rest = k;
  if (digit == 0) return;
  if (digit > 1) {
    prefix = selection.found[digit - 2].prefix, rest = selection.found[digit - 2].k;
  }
  uint32_t bin;
  select_bin(selection.counts[digit - 1], rest, shares, bin, rest);
  prefix |= bin << shift_of(digit - 1);
  if (block_x() == 0 && thread() == 0) {
    selection.found[digit - 1] = {prefix, rest};
  }
}

__global__ void __launch_bounds__(kSelectThreads)
    count_kernel(const float* values, int64_t count, uint32_t k, int digit,
                 int blocks, Selection* selection) {
  auto counts = reinterpret_cast<uint32_t*>(shared_memory());
  uint32_t* shares = counts + kBins;
  for (int i = thread(); i < kBins; i += kSelectThreads) counts[i] = 0;
  uint32_t prefix, rest;
  find_prefix(*selection, digit, k, shares, prefix, rest);
  sync_block();
  int shift = shift_of(digit), above = digit ? shift_of(digit - 1) : 31;
  // Equal digits one after the other are added at once: losses have many zeros.
  uint32_t last = 0, run = 0;
  int64_t each = int64_t(kLoads) * kSelectThreads;
  for (int64_t first = block_x() * each; first < count; first += blocks * each) {
    float own[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      int64_t place = first + i * kSelectThreads + thread();
      own[i] = place < count ? values[place] : 0;
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      uint32_t key = key_of(own[i]);
      bool counted = first + i * kSelectThreads + thread() < count &&
                     (digit == 0 || key >> above == prefix >> above);
      if (!counted) continue;
      uint32_t bin = key >> shift & (digit == 2 ? 1023 : kBins - 1);
      if (bin != last) {
        if (run) add_atomically(counts + last, run);
        last = bin, run = 0;
      }
      ++run;
    }
  }
  if (run) add_atomically(counts + last, run);
  sync_block();
  for (int i = thread(); i < kBins; i += kSelectThreads) {
    if (counts[i]) add_atomically(selection->counts[digit] + i, counts[i]);
  }
}

__global__ void __launch_bounds__(kSelectThreads)
    result_kernel(uint32_t k, Selection* selection, float* result) {
  uint32_t prefix, rest;
  find_prefix(*selection, kDigits, k, reinterpret_cast<uint32_t*>(shared_memory()),
              prefix, rest);
  if (thread() == 0) *result = value_of(prefix);
}

}  // namespace

int64_t kth_largest_workspace() { return sizeof(Selection); }

const char* kth_largest(const float* values, int64_t count, int64_t k,
                        int processors, float* result, void* workspace,
                        void* stream) {
  int64_t each = int64_t(kLoads) * kSelectThreads;
  int64_t needed = (count + each - 1) / each, most = 8 * int64_t(processors);
  int blocks = int(needed < most ? needed : most);
  auto selection = static_cast<Selection*>(workspace);
  int bytes = 4 * (kBins + kSelectThreads + kSelectThreads / 32);
  for (int digit = 0; digit < kDigits; ++digit) {
    Launch work = {blocks, 1, kSelectThreads, 1, bytes, stream};
    if (auto wrong = launch(count_kernel, work, values, count, uint32_t(k), digit,
                            blocks, selection)) {
      return wrong;
    }
  }
  Launch last = {1, 1, kSelectThreads, 1, bytes, stream};
  return launch(result_kernel, last, uint32_t(k), selection, result);
}

}  // namespace encstdc
