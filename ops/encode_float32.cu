// The Encoding kernels for float32 features.
#include "launch.cuh"

namespace encstdc {

int active_float32(const Problem& p, bool backward) {
  return active<Tf32<float>>(p, backward);
}

const char* run_float32(const Problem& p, bool backward, void* stream) {
  return run<Tf32<float>>(p, backward, stream);
}

}  // namespace encstdc
