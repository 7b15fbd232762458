// The Encoding kernels for float16 features.
#include "launch.cuh"
namespace encstdc {
const Kernels kFloat16Kernels = {run<Tf32Product<Float16>>,
                                 active<Tf32Product<Float16>>};
}
