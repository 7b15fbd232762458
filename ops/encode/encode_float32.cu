// The Encoding kernels for float32 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kFloat32Kernels = kernels_of<Tf32Product<float>>();
}
