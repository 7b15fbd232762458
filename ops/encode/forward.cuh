// The forward pass over one tile: assignments.
#pragma once
#include "assignment.cuh"

namespace encstdc {

// Writes A_ik of a tile, of which `features` exist, and 0 for padded features and
// codewords.
template <class B> __device__ void assign_forward(const B& b, int features) {
  int n = b.own_feature();
  float inverse = exponentials(b);
  b.for_own_codewords(b.p.K_pad, [&](int k) {
    bool exists = n < features && k < b.p.K;
    float assigned = exists ? *b.logits().at(k, n) * inverse : 0;
    *b.assignment().at(k, n) = from_float<typename B::Operand>(assigned);
  });
}

}  // namespace encstdc
