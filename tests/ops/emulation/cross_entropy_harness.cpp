// The emulated kernels of the cross entropy and the selection for ctypes.
#include "../../../ops/cross_entropy.h"
#include "../../../ops/kth_largest.h"
#include "emulated_device.h"

using namespace encstdc;

namespace {

// sizes: type, batch, channels, rows, columns, rows and columns of labels, whether
// labels are bytes, whether corners are aligned, the label to ignore.
LossShape shape_of(const int* sizes) {
  return {Type(sizes[0]), sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
          sizes[6], sizes[7] != 0, sizes[8] != 0, sizes[9]};
}

}  // namespace

extern "C" {

// Returns 0, with the numbers of the plan, or 1: not supported.
int loss_plan(const int* sizes, int is_backward, int64_t* numbers) {
  LossPlan out = plan(shape_of(sizes), is_backward);
  int64_t all[] = {out.strip, out.groups, out.tiles, out.width, out.chunk,
                   out.blocks, out.bytes, out.workspace};
  std::memcpy(numbers, all, sizeof(all));
  return out.strip == 0;
}

const char* loss_forward(const int* sizes, unsigned seed, const void* logits,
                         const void* labels, float* losses, uint8_t* hits,
                         float* normaliser) {
  LossShape shape = shape_of(sizes);
  emulation::order.seed(seed);
  return forward(shape, plan(shape, false), logits, labels, losses, hits,
                 normaliser, nullptr);
}

const char* loss_backward(const int* sizes, unsigned seed, const float* grad,
                          const void* logits, const void* labels,
                          const float* normaliser, void* grad_logits,
                          void* workspace) {
  LossShape shape = shape_of(sizes);
  emulation::order.seed(seed);
  return backward(shape, plan(shape, true), grad, logits, labels, normaliser,
                  grad_logits, workspace, nullptr);
}

int64_t select_workspace() { return kth_largest_workspace(); }

const char* select_kth(unsigned seed, const float* values, int64_t count, int64_t k,
                       int processors, float* result, void* workspace) {
  emulation::order.seed(seed);
  return kth_largest(values, count, k, processors, result, workspace, nullptr);
}
}
