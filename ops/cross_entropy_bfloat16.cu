// The cross entropy of upsampled bfloat16 logits.
#include "cross_entropy.cuh"

namespace encstdc {

const char* loss_bfloat16(const LossProblem& p, const LossPlan& plan, bool backward,
                         void* stream) {
  return run_loss<BFloat16>(p, plan, backward, stream);
}

}  // namespace encstdc
