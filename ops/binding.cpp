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

#include "cross_entropy.h"
#include "encode.h"
#include "kth_largest.h"

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

// Logits (B, C, h, w), labels (B, H, W).
LossShape loss_shape_of(const Tensor& logits, const Tensor& labels,
                        bool align_corners, int64_t ignore_index) {
  return {type_of(logits),      int(logits.size(0)), int(logits.size(1)),
          int(logits.size(2)),  int(logits.size(3)), int(labels.size(1)),
          int(labels.size(2)),  labels.scalar_type() == at::kByte,
          align_corners,        ignore_index};
}

bool small(const Tensor& x) {
  for (int64_t size : x.sizes()) {
    if (size > std::numeric_limits<int>::max()) return false;
  }
  return true;
}

// Whether the kernels take them, with corners aligned or not.
bool supports_cross_entropy(const Tensor& logits, const Tensor& labels) {
  bool types = logits.scalar_type() == at::kFloat ||
               logits.scalar_type() == at::kHalf ||
               logits.scalar_type() == at::kBFloat16;
  types = types && (labels.scalar_type() == at::kLong ||
                    labels.scalar_type() == at::kByte);
  if (!types || !logits.is_cuda() || logits.device() != labels.device()) {
    return false;
  }
  if (logits.dim() != 4 || labels.dim() != 3 || logits.size(0) != labels.size(0) ||
      !small(logits) || !small(labels)) {
    return false;
  }
  for (bool aligned : {false, true}) {
    LossShape shape = loss_shape_of(logits, labels, aligned, -1);
    if (!plan(shape, false).strip || !plan(shape, true).strip) return false;
  }
  return true;
}

LossPlan loss_plan_of(const LossShape& shape, const Tensor& logits,
                      const Tensor& labels, bool backward) {
  TORCH_CHECK(supports_cross_entropy(logits, labels),
              "logits ", logits.sizes(), " and labels ", labels.sizes(),
              " are not what the kernels of the cross entropy take");
  return plan(shape, backward);
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& logits,
                                                 const Tensor& labels,
                                                 bool align_corners,
                                                 int64_t ignore_index) {
  c10::cuda::CUDAGuard guard(logits.device());
  Tensor scores = logits.contiguous(), classes = labels.contiguous();
  LossShape shape = loss_shape_of(scores, classes, align_corners, ignore_index);
  LossPlan how = loss_plan_of(shape, scores, classes, false);
  Tensor losses = at::empty(classes.sizes(), scores.options().dtype(at::kFloat));
  Tensor hits = at::empty(classes.sizes(), scores.options().dtype(at::kBool));
  Tensor normaliser = at::empty_like(losses);
  const char* wrong = forward(
      shape, how, scores.data_ptr(), classes.data_ptr(), losses.data_ptr<float>(),
      static_cast<uint8_t*>(hits.data_ptr()), normaliser.data_ptr<float>(),
      current_stream());
  TORCH_CHECK(!wrong, wrong);
  return {losses, hits, normaliser};
}

Tensor cross_entropy_backward(const Tensor& grad, const Tensor& logits,
                              const Tensor& labels, const Tensor& normaliser,
                              bool align_corners, int64_t ignore_index) {
  c10::cuda::CUDAGuard guard(logits.device());
  Tensor scores = logits.contiguous(), classes = labels.contiguous();
  Tensor pull = grad.contiguous(), sums = normaliser.contiguous();
  TORCH_CHECK(pull.sizes() == classes.sizes() && sums.sizes() == classes.sizes(),
              "gradient ", pull.sizes(), " and normaliser ", sums.sizes(),
              " must be of the labels' shape ", classes.sizes());
  LossShape shape = loss_shape_of(scores, classes, align_corners, ignore_index);
  LossPlan how = loss_plan_of(shape, scores, classes, true);
  Tensor grad_logits = at::empty_like(scores);
  Tensor workspace =
      at::empty({how.workspace}, scores.options().dtype(at::kByte));
  const char* wrong = backward(
      shape, how, pull.data_ptr<float>(), scores.data_ptr(), classes.data_ptr(),
      sums.data_ptr<float>(), grad_logits.data_ptr(), workspace.data_ptr(),
      current_stream());
  TORCH_CHECK(!wrong, wrong);
  return grad_logits;
}

// The k-th largest, from 1, of all values; NaN is the largest.
Tensor select_kth_largest(const Tensor& values, int64_t k) {
  c10::cuda::CUDAGuard guard(values.device());
  Tensor flat = values.contiguous();
  int64_t count = flat.numel();
  TORCH_CHECK(count <= std::numeric_limits<int>::max() && k >= 1 && k <= count,
              "k must be 1 to the number of values, below 2^31, got ", k, " of ",
              count);
  int processors = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(
      &processors, cudaDevAttrMultiProcessorCount, flat.device().index()));
  Tensor result = at::empty({}, flat.options());
  Tensor workspace =
      at::zeros({kth_largest_workspace()}, flat.options().dtype(at::kByte));
  const char* wrong = kth_largest(
      flat.data_ptr<float>(), count, k, processors, result.data_ptr<float>(),
      workspace.data_ptr(), current_stream());
  TORCH_CHECK(!wrong, wrong);
  return result;
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
  library.def("supports_cross_entropy(Tensor logits, Tensor labels) -> bool",
              encstdc::supports_cross_entropy);
  library.def(
      "cross_entropy(Tensor logits, Tensor labels, bool align_corners,"
      " int ignore_index) -> (Tensor losses, Tensor hits, Tensor normaliser)",
      encstdc::cross_entropy);
  library.def(
      "cross_entropy_backward(Tensor grad, Tensor logits, Tensor labels,"
      " Tensor normaliser, bool align_corners, int ignore_index)"
      " -> Tensor grad_logits",
      encstdc::cross_entropy_backward);
  library.def("kth_largest(Tensor values, int k) -> Tensor",
              encstdc::select_kth_largest);
}
