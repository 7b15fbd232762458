// The Encoding kernels for bfloat16 features.
#include "launch.cuh"

namespace encstdc {

int active_bfloat16(const Problem& p, bool backward) {
  return active<BFloat16Core>(p, backward);
}

const char* run_bfloat16(const Problem& p, bool backward, void* stream) {
  return run<BFloat16Core>(p, backward, stream);
}

}  // namespace encstdc
