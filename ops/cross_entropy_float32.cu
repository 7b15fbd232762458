// The cross entropy of upsampled float32 logits.
#include "cross_entropy.cuh"

namespace encstdc {

const char* loss_float32(const LossProblem& p, const LossPlan& plan, bool backward,
                         void* stream) {
  return run_loss<float>(p, plan, backward, stream);
}

}  // namespace encstdc
