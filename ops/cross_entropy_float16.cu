// The cross entropy of upsampled float16 logits.
#include "cross_entropy.cuh"

namespace encstdc {

const char* loss_float16(const LossProblem& p, const LossPlan& plan, bool backward,
                         void* stream) {
  return run_loss<Float16>(p, plan, backward, stream);
}

}  // namespace encstdc
