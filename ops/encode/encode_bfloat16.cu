// The Encoding kernels for bfloat16 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kBFloat16Kernels = kernels_of<BFloat16Product>();
}
