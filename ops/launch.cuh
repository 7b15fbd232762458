// Launches of the kernels for one core; each core is a .cu file of its own, so
// that they compile side by side.
#pragma once

#include "kernels.cuh"

namespace encstdc {

template <class Core, bool ROWS, bool BACKWARD>
auto kernel_of(const Problem& p) {
  return p.chunks == 1 && p.groups == 1
             ? encode_kernel<Core, ROWS, BACKWARD, true>
             : encode_kernel<Core, ROWS, BACKWARD, false>;
}

template <class Core>
const char* run(const Problem& p, bool backward, void* stream) {
  int threads = backward ? kLastThreads : kRowThreads;
  Launch prepare = {p.padded_codes, backward ? 1 + p.batch : 1, kRowThreads, 1,
                    4 * kRowThreads, stream};
  Launch work = {p.splits, p.batch, kThreads, p.cluster, p.at.bytes, stream};
  Launch finish = {p.codes, backward ? 1 : p.batch, threads, 1, 8 * threads,
                   stream};
  if (auto wrong = launch(prepare_kernel<Core>, prepare, p)) return wrong;
  auto kernel = backward ? p.channels_are_rows ? kernel_of<Core, true, true>(p)
                                               : kernel_of<Core, false, true>(p)
                : p.channels_are_rows ? kernel_of<Core, true, false>(p)
                                      : kernel_of<Core, false, false>(p);
  if (auto wrong = launch(kernel, work, p)) return wrong;
  return launch(backward ? finish_backward_kernel<Core> : finish_kernel<Core>,
                finish, p);
}

}  // namespace encstdc
