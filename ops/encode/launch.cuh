// The launches of a product. Each type has a .cu file, to be compiled side by side.
#pragma once
#include "prepare_finish.cuh"
#include "walk.cuh"

namespace encstdc {

using Kernel = void (*)(Problem);

template <class Product, bool CHANNELS_ARE_ROWS, bool BACKWARD>
Kernel kernel_of(const Problem& p) {
  return p.chunks * p.groups == 1
             ? walk_kernel<Block<Product, CHANNELS_ARE_ROWS, BACKWARD, true>>
             : walk_kernel<Block<Product, CHANNELS_ARE_ROWS, BACKWARD, false>>;
}
template <class Product>
Kernel kernel_of(const Problem& p, bool backward) {
  if (p.channels_are_rows && backward) return kernel_of<Product, true, true>(p);
  if (p.channels_are_rows) return kernel_of<Product, true, false>(p);
  return backward ? kernel_of<Product, false, true>(p)
                  : kernel_of<Product, false, false>(p);
}

inline LaunchConfig walk_config(const Problem& p, void* stream) {
  return {p.blocks, 1, kThreads, p.cluster_size, p.at.bytes, stream};
}

template <class Product>
const char* run(const Problem& p, bool backward, void* stream) {
  LaunchConfig prepare = {p.K_pad, backward ? 1 + p.B : 1, kRowThreads, 1,
                          4 * kRowThreads, stream};
  if (auto error = launch(prepare_kernel<Product>, prepare, p)) return error;
  auto walk = kernel_of<Product>(p, backward);
  if (auto error = launch(walk, walk_config(p, stream), p)) return error;
  int threads = backward ? kFinishBackwardThreads : kRowThreads;
  LaunchConfig finish = {p.K, backward ? 1 : p.B, threads, 1, 8 * threads, stream};
  return launch(backward ? finish_backward_kernel<Product> : finish_kernel<Product>,
                finish, p);
}

template <class Product>
int active(const Problem& p, bool backward) {
  return active_blocks(kernel_of<Product>(p, backward), walk_config(p, nullptr));
}

}  // namespace encstdc
