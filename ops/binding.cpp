// The CUDA kernels as torch operators. mmseg_encstdc/ops checks the arguments, calls
// these operators, and defines fake tensors and gradients.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <array>
#include <map>
#include <mutex>
#include <tuple>

#include "encode/encode.h"

namespace encstdc {
namespace {
using at::Tensor;

Type type_of(const Tensor& x) {
  if (x.scalar_type() == at::kFloat) return Type::kFloat32;
  if (x.scalar_type() == at::kHalf) return Type::kFloat16;
  TORCH_CHECK_TYPE(x.scalar_type() == at::kBFloat16,
                   "must be float32, float16 or bfloat16, got ", x.scalar_type());
  return Type::kBFloat16;
}

// x: (B, D, N); codewords: (K, D).
Shape shape_of(const Tensor& x, const Tensor& codewords) {
  return {type_of(x), x.size(0), x.size(1), x.size(2), codewords.size(0)};
}

FeatureView view_of(const Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)};
}

// Plans are cached, because querying the device takes longer than a launch.
Plan plan_of(const Tensor& x, const Tensor& codewords, bool backward) {
  static std::mutex mutex;
  static std::map<std::array<int64_t, 7>, Plan> plans;
  Shape shape = shape_of(x, codewords);
  int device = x.device().index();
  std::array<int64_t, 7> key = {
      int64_t(shape.type), shape.B, shape.D, shape.N, shape.K, device, backward};
  std::lock_guard<std::mutex> lock(mutex);
  auto found = plans.find(key);
  if (found == plans.end()) {
    c10::cuda::CUDAGuard guard(x.device());
    Device limits = {};
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&limits.multiprocessors,
                                          cudaDevAttrMultiProcessorCount, device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(
        &limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    found = plans.emplace(key, make_plan(shape, limits, backward)).first;
  }
  return found->second;
}

// Returns whether the kernels take x (B, D, N) and codewords (K, D) on this device.
bool supports(const Tensor& x, const Tensor& codewords) {
  return plan_of(x, codewords, false).block_channels &&
         plan_of(x, codewords, true).block_channels;
}

// The inputs of both passes; codewords and scale are contiguous.
Arguments arguments_of(const Tensor& x, const Tensor& codewords, const Tensor& scale) {
  Arguments arguments = {};
  arguments.x = view_of(x), arguments.codewords = codewords.data_ptr<float>();
  arguments.scale = scale.data_ptr<float>();
  return arguments;
}

// Launches a pass on the current stream.
void run_pass(const Tensor& x, const Tensor& codewords, const Arguments& arguments) {
  Plan plan = plan_of(x, codewords, arguments.grad != nullptr);
  TORCH_CHECK(plan.block_channels, "the device does not support these sizes");
  Tensor workspace = at::empty({plan.workspace_bytes}, x.options().dtype(at::kByte));
  const char* error = run(shape_of(x, codewords), plan, arguments, workspace.data_ptr(),
                          c10::cuda::getCurrentCUDAStream().stream());
  TORCH_CHECK(!error, error);
}

// Returns encodings (B, K, D) of x (B, D, N), codewords (K, D) and scale (K).
Tensor encode(const Tensor& x, const Tensor& codewords, const Tensor& scale) {
  c10::cuda::CUDAGuard guard(x.device());
  Tensor C = codewords.contiguous(), s = scale.contiguous();
  Tensor encodings = at::empty({x.size(0), C.size(0), C.size(1)}, C.options());
  Arguments arguments = arguments_of(x, C, s);
  arguments.encodings = encodings.data_ptr<float>();
  run_pass(x, C, arguments);
  return encodings;
}

// Returns the gradients of x, codewords and scale. grad: (B, K, D), of the encodings.
std::tuple<Tensor, Tensor, Tensor> encode_backward(const Tensor& grad, const Tensor& x,
                                                   const Tensor& codewords,
                                                   const Tensor& scale) {
  c10::cuda::CUDAGuard guard(x.device());
  Tensor G = grad.contiguous(), C = codewords.contiguous(), s = scale.contiguous();
  Tensor grad_x = at::empty_like(x), grad_C = at::empty_like(C);
  Tensor grad_s = at::empty_like(s);
  Arguments arguments = arguments_of(x, C, s);
  arguments.grad = G.data_ptr<float>(), arguments.grad_x = view_of(grad_x);
  arguments.grad_codewords = grad_C.data_ptr<float>();
  arguments.grad_scale = grad_s.data_ptr<float>();
  run_pass(x, C, arguments);
  return {grad_x, grad_C, grad_s};
}

}  // namespace
}  // namespace encstdc

TORCH_LIBRARY_FRAGMENT(mmseg_encstdc, library) {
  library.def("encode_cuda_supports(Tensor x, Tensor codewords) -> bool",
              encstdc::supports);
  library.def("encode_cuda(Tensor x, Tensor codewords, Tensor scale) -> Tensor",
              encstdc::encode);
  library.def(
      "encode_cuda_backward(Tensor grad, Tensor x, Tensor codewords, Tensor scale)"
      " -> (Tensor, Tensor, Tensor)",
      encstdc::encode_backward);
}
