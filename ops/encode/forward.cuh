// The forward pass over one tile: assignments, and their sums.
#pragma once
#include "assignment.cuh"

namespace encstdc {

// Writes A_ik of a tile, of which `features` exist, and 0 for padded features and
// codewords. A lane has one feature and every eighth codeword.
template <class B> __device__ void assign_forward(const B& b, int features) {
  int n = 4 * b.warp + b.t;
  float inverse = exponentials(b, n);
  for (int k = b.g; k < b.p.K_pad; k += 8) {
    bool exists = n < features && k < b.p.K;
    float assigned = exists ? *b.logits().at(k, n) * inverse : 0;
    *b.assignment().at(k, n) = from_float<typename B::Operand>(assigned);
  }
}

// Adds the features of a tile to assignment_sum. Eight lanes share a codeword.
template <class B> __device__ void add_sums_forward(const B& b) {
  for (int k = thread() / 8; k < b.p.K_pad; k += kThreads / 8) {
    float sum = 0;
    for (int i = 0; i < kBlockFeatures; i += 8) {
      sum += to_float(*b.assignment().at(k, i + thread() % 8));
    }
    sum = sum_lanes<1, 8>(sum);
    if (thread() % 8 == 0) b.floats(b.p.at.assignment_sum)[k] += sum;
  }
}

}  // namespace encstdc
