// The plain interface of the selection: no torch, no CUDA header.
#pragma once

#include <cstdint>

namespace encstdc {

// Bytes of device memory, which must be zero.
int64_t kth_largest_workspace();

// The k-th largest (from 1) of `count` floats, 1 <= k <= count < 2^31, to
// `result`. NaN is the largest. Returns nullptr, or what went wrong.
const char* kth_largest(const float* values, int64_t count, int64_t k,
                        int processors, float* result, void* workspace,
                        void* stream);

}  // namespace encstdc
