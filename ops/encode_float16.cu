// The Encoding kernels for float16 features.
#include "launch.cuh"

namespace encstdc {

int active_float16(const Problem& p, bool backward) {
  return active<Tf32<Float16>>(p, backward);
}

const char* run_float16(const Problem& p, bool backward, void* stream) {
  return run<Tf32<Float16>>(p, backward, stream);
}

}  // namespace encstdc
