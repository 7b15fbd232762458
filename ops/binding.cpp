// The kernels as torch operators. mmseg_encstdc/ops calls them; it has checked the
// arguments, and gives them fake tensors and gradients.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <array>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "encode.h"

namespace encstdc {
namespace {

using at::Tensor;

Type type_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Type::kFloat32;
    case at::kHalf:
      return Type::kFloat16;
    case at::kBFloat16:
      return Type::kBFloat16;
    default:
      TORCH_CHECK_TYPE(false, "must be float32, float16 or bfloat16, got ",
                       x.scalar_type());
  }
}

Shape shape_of(const Tensor& x, const Tensor& codewords) {
  return {type_of(x), int(x.size(0)), int(x.size(1)), int(x.size(2)),
          int(codewords.size(0))};
}

View view_of(const Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)};
}

Plan make_plan(const Shape& shape, int device, bool backward) {
  auto attribute = [device](cudaDeviceAttr name) {
    int value = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device));
    return value;
  };
  Device limits = {attribute(cudaDevAttrMultiProcessorCount),
                   attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                   10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                       attribute(cudaDevAttrComputeCapabilityMinor)};
  return plan(shape, limits, backward);
}

// Asking the device takes longer than a launch: plans are kept.
Plan plan_of(const Tensor& x, const Tensor& codewords, bool backward) {
  static std::mutex mutex;
  static std::map<std::array<int, 7>, Plan> plans;
  Shape shape = shape_of(x, codewords);
  int device = x.device().index();
  std::array<int, 7> key = {int(shape.type), shape.batch, shape.channels,
                            shape.features, shape.codes, device, backward};
  std::lock_guard<std::mutex> lock(mutex);
  auto found = plans.find(key);
  if (found == plans.end()) {
    c10::cuda::CUDAGuard guard(x.device());
    found = plans.emplace(key, make_plan(shape, device, backward)).first;
  }
  return found->second;
}

// Whether the kernels take x (B, D, N) and K codewords on this device.
bool supports(const Tensor& x, const Tensor& codewords) {
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  bool small = x.size(0) < 65535 && x.size(1) * codewords.size(0) <= kMost / 2 &&
               x.size(2) <= kMost / 2;
  return small && x.numel() && plan_of(x, codewords, false).chunk &&
         plan_of(x, codewords, true).chunk;
}

Tensor workspace_of(const Plan& plan, const Tensor& x) {
  TORCH_CHECK(plan.chunk, "the device has too little shared memory");
  return at::empty({plan.workspace}, x.options().dtype(at::kByte));
}

void* current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

Tensor encode(const Tensor& x, const Tensor& codewords, const Tensor& scale) {
  c10::cuda::CUDAGuard guard(x.device());
  Tensor codes = codewords.contiguous(), steep = scale.contiguous();
  Tensor out = at::empty({x.size(0), codes.size(0), codes.size(1)},
                         codes.options());
  Plan how = plan_of(x, codes, false);
  Tensor workspace = workspace_of(how, x);
  const char* wrong = forward(
      shape_of(x, codes), how, view_of(x), codes.data_ptr<float>(),
      steep.data_ptr<float>(), out.data_ptr<float>(), workspace.data_ptr(),
      current_stream());
  TORCH_CHECK(!wrong, wrong);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> encode_backward(const Tensor& grad,
                                                   const Tensor& x,
                                                   const Tensor& codewords,
                                                   const Tensor& scale) {
  c10::cuda::CUDAGuard guard(x.device());
  Tensor codes = codewords.contiguous(), steep = scale.contiguous();
  Tensor pull = grad.contiguous(), grad_x = at::empty_like(x);
  Tensor grad_codes = at::empty_like(codes), grad_steep = at::empty_like(steep);
  Plan how = plan_of(x, codes, true);
  Tensor workspace = workspace_of(how, x);
  const char* wrong = backward(
      shape_of(x, codes), how, view_of(x), codes.data_ptr<float>(),
      steep.data_ptr<float>(), pull.data_ptr<float>(), view_of(grad_x),
      grad_codes.data_ptr<float>(), grad_steep.data_ptr<float>(),
      workspace.data_ptr(), current_stream());
  TORCH_CHECK(!wrong, wrong);
  return {grad_x, grad_codes, grad_steep};
}

}  // namespace
}  // namespace encstdc

TORCH_LIBRARY(mmseg_encstdc_cuda, library) {
  library.def("supports(Tensor x, Tensor codewords) -> bool",
              encstdc::supports);
  library.def("encode(Tensor x, Tensor codewords, Tensor scale) -> Tensor",
              encstdc::encode);
  library.def(
      "encode_backward(Tensor grad, Tensor x, Tensor codewords, Tensor scale)"
      " -> (Tensor, Tensor, Tensor)",
      encstdc::encode_backward);
}
