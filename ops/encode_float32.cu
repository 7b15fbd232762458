// The Encoding kernels for float32 features.
#include "launch.cuh"

namespace encstdc {

const char* run_float32(const Problem& p, bool backward, void* stream) {
  return run<Tf32<float>>(p, backward, stream);
}

}  // namespace encstdc
