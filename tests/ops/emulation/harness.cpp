// The emulated kernels for ctypes.
#include "../../../ops/encode.h"
#include "emulated_device.h"

using namespace encstdc;

extern "C" {

// sizes: type, batch, channels, features, codes; device: processors, shared
// memory, capability. Returns 0, with the numbers of the plan, or 1: no room.
int encode_plan(const int* sizes, const int* device, int is_backward,
                int64_t* numbers) {
  Shape shape = {Type(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4]};
  emulation::processors = device[0];
  Plan out = plan(shape, {device[0], device[1], device[2]}, is_backward);
  int64_t all[] = {out.chunk, out.stages, out.blocks, out.cluster, out.bytes,
                   out.workspace};
  std::memcpy(numbers, all, sizeof(all));
  return out.chunk == 0;
}

// strides: batch, channel, feature of x, then of its gradient. A null grad asks
// for the forward pass.
const char* encode_run(const int* sizes, const int* device, unsigned seed,
                       const int64_t* strides, void* x, const float* codewords,
                       const float* scale, const float* grad, float* encodings,
                       void* grad_x, float* grad_codewords, float* grad_scale,
                       void* workspace) {
  Shape shape = {Type(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4]};
  emulation::processors = device[0];
  Plan how = plan(shape, {device[0], device[1], device[2]}, grad != nullptr);
  emulation::order.seed(seed);
  View view = {x, strides[0], strides[1], strides[2]};
  if (!grad) {
    return forward(shape, how, view, codewords, scale, encodings, workspace,
                   nullptr);
  }
  View grad_view = {grad_x, strides[3], strides[4], strides[5]};
  return backward(shape, how, view, codewords, scale, grad, grad_view,
                  grad_codewords, grad_scale, workspace, nullptr);
}
}
