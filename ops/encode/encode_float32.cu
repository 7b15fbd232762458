// The Encoding kernels for float32 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kFloat32Kernels = {run<Tf32Product<float>>, active<Tf32Product<float>>};
}
