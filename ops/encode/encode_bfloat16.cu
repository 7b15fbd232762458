// The Encoding kernels for bfloat16 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kBFloat16Kernels = {run<BFloat16Product>, active<BFloat16Product>};
}
