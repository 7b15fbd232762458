// Launches of the kernels for one core; each core is a .cu file of its own, so
// that they compile side by side.
#pragma once

#include "kernels.cuh"
#include "rows.cuh"

namespace encstdc {

using Kernel = void (*)(Problem);

template <class Core, bool ROWS, bool BACKWARD>
Kernel kernel_of(const Problem& p) {
  return p.chunks == 1 && p.groups == 1
             ? encode_kernel<Core, ROWS, BACKWARD, true>
             : encode_kernel<Core, ROWS, BACKWARD, false>;
}

template <class Core>
Kernel kernel_of(const Problem& p, bool backward) {
  if (p.channels_are_rows) {
    return backward ? kernel_of<Core, true, true>(p)
                    : kernel_of<Core, true, false>(p);
  }
  return backward ? kernel_of<Core, false, true>(p)
                  : kernel_of<Core, false, false>(p);
}

inline Launch launch_of(const Problem& p, void* stream) {
  return {p.blocks, 1, kThreads, p.cluster, p.at.bytes, stream};
}

// Blocks that the device runs at once, in clusters of p.cluster.
template <class Core>
int active(const Problem& p, bool backward) {
  return active_blocks(kernel_of<Core>(p, backward), launch_of(p, nullptr));
}

template <class Core>
const char* run(const Problem& p, bool backward, void* stream) {
  Launch prepare = {p.padded_codes, backward ? 1 + p.batch : 1, kRowThreads, 1,
                    4 * kRowThreads, stream};
  if (auto wrong = launch(prepare_kernel<Core>, prepare, p)) return wrong;
  Launch work = launch_of(p, stream);
  if (auto wrong = launch(kernel_of<Core>(p, backward), work, p)) return wrong;
  int threads = backward ? kLastThreads : kRowThreads;
  Launch finish = {p.codes, backward ? 1 : p.batch, threads, 1, 8 * threads,
                   stream};
  return launch(backward ? finish_backward_kernel<Core> : finish_kernel<Core>,
                finish, p);
}

}  // namespace encstdc
