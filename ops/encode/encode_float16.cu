// The Encoding kernels for float16 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kFloat16Kernels = kernels_of<Tf32Product<Float16>>();
}
