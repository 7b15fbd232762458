// The emulated kernels for ctypes.
#include "common/device.cuh"
#include "encode/encode.h"

using namespace encstdc;

// sizes: type, B, D, N, K. device: multiprocessors, shared memory, and the architecture
// that the code is compiled for.
static Plan plan_of(const Shape& shape, const int* device, bool backward) {
  emulation::multiprocessors = device[0], emulation::architecture = device[2];
  return make_plan(shape, {device[0], device[1]}, backward);
}

// Writes the numbers of the plan; block_channels 0: no room.
extern "C" void encode_plan(const int* sizes, const int* device, int backward,
                            int64_t* numbers) {
  Shape shape = {Type(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4]};
  Plan plan = plan_of(shape, device, backward);
  int64_t all[] = {plan.block_channels, plan.stages,       plan.blocks,
                   plan.cluster_size,   plan.shared_bytes, plan.workspace_bytes};
  std::memcpy(numbers, all, sizeof(all));
}

// strides: batch, channel and feature of x, then of its gradient.
extern "C" const char* encode_run(const int* sizes, const int* device, unsigned seed,
                                  const int64_t* strides, void* x, void* grad_x,
                                  const float* codewords, const float* scale,
                                  const float* grad, float* encodings,
                                  float* grad_codewords, float* grad_scale,
                                  void* workspace) {
  Shape shape = {Type(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4]};
  emulation::order.seed(seed);
  Arguments arguments = {{x, strides[0], strides[1], strides[2]},
                         {grad_x, strides[3], strides[4], strides[5]},
                         codewords,
                         scale,
                         grad,
                         encodings,
                         grad_codewords,
                         grad_scale};
  Plan plan = plan_of(shape, device, grad != nullptr);
  return run(shape, plan, arguments, workspace, nullptr);
}
