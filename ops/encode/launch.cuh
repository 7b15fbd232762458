// The launches of a product. Each type has a .cu file, to be compiled side by side.
#pragma once
#include "prepare_finish.cuh"
#include "walk.cuh"

namespace encstdc {

using Kernel = void (*)(Problem);

// Returns the walk kernel for flags: channels_are_rows, backward, single chunk.
template <class Product, bool... FLAGS> Kernel kernel_of(const bool (&flags)[3]) {
  if constexpr (sizeof...(FLAGS) == 3) {
    return walk_kernel<Block<Product, FLAGS...>>;
  } else {
    return flags[sizeof...(FLAGS)] ? kernel_of<Product, FLAGS..., true>(flags)
                                   : kernel_of<Product, FLAGS..., false>(flags);
  }
}
template <class Product> Kernel kernel_of(const Problem& p, bool backward) {
  return kernel_of<Product>({p.channels_are_rows, backward, p.chunks * p.groups == 1});
}

inline LaunchConfig walk_config(const Problem& p, void* stream) {
  return {p.blocks, 1, kThreads, p.cluster_size, int(p.at.bytes), stream};
}

template <class Product>
const char* run(const Problem& p, bool backward, void* stream) {
  LaunchConfig prepare = {p.K_pad, backward ? 1 + p.B : 1, kRowThreads,
                          1,       sizeof(PrepareShared),  stream};
  if (auto error = launch(prepare_kernel<Product>, prepare, p)) return error;
  auto walk = kernel_of<Product>(p, backward);
  if (auto error = launch(walk, walk_config(p, stream), p)) return error;
  LaunchConfig finish = {p.K, p.B, kRowThreads, 1, 0, stream};
  if (!backward) return launch(finish_kernel, finish, p);
  finish = {p.K, 1, kFinishBackwardThreads, 1, sizeof(FinishBackwardShared), stream};
  return launch(finish_backward_kernel, finish, p);
}

// Measures one layout, because a plan does not depend on strides. The other layout has
// the same shared memory, and __launch_bounds__ ensures a block per multiprocessor.
template <class Product> int active(const Problem& p, bool backward) {
  return active_blocks(kernel_of<Product>(p, backward), walk_config(p, nullptr));
}

}  // namespace encstdc
