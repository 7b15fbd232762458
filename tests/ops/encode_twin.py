"""Compute what the CUDA kernels of the Encoding operator compute, in plain torch.

Operands are rounded or split as for the tensor cores. Sums have the same terms as in
ops/encode, in torch's order. float64 operands are not rounded.
"""
import torch


def cut(value):
    """Return float32 ``value`` without the 13 bits that tf32 lacks."""
    return (value.view(torch.int32) & -8192).view(torch.float32)


def operand(dtype, value):
    """Return ``value`` as it is kept in shared memory for x of ``dtype``."""
    return value.bfloat16().float() if dtype == torch.bfloat16 else value


def product(dtype, left, right, terms=1):
    """Return left (..., M, n) right (..., n, N), in bfloat16 with ``terms`` of left."""
    if dtype == torch.float64:
        return left @ right
    if dtype == torch.bfloat16:
        high = operand(dtype, left)
        low = operand(dtype, left - high) if terms == 2 else torch.zeros_like(left)
        return low @ right + high @ right
    left_high, right_high = cut(left), cut(right)
    left_low, right_low = cut(left - left_high), cut(right - right_high)
    return left_low @ right_high + left_high @ right_low + left_high @ right_high


def centre(x, codewords):
    """Return x (B, D, N) in the codewords' type, and codewords, less the mean codeword.

    bfloat16 features are exact operands, and nothing is subtracted.
    """
    mean = codewords.mean(0) * (x.dtype != torch.bfloat16)
    return x.to(codewords.dtype) - mean.unsqueeze(1), codewords - mean


def assign(dtype, x, codewords, scale):
    """Return the assignment (B, K, N) and |x|^2 (B, 1, N)."""
    x_sq = x.square().sum(1, keepdim=True)
    distance = x_sq - 2 * product(dtype, codewords, x, terms=2) + codewords.square(
        ).sum(1, keepdim=True)
    return (scale.unsqueeze(1) * distance).softmax(1), x_sq


def forward(x, codewords, scale):
    """Return encodings (B, K, D) of x (B, D, N)."""
    dtype, (x, codewords) = x.dtype, centre(x, codewords)
    assignment = operand(dtype, assign(dtype, x, codewords, scale)[0])
    assignment_sum = assignment.sum(2, keepdim=True)  # (B, K, 1)
    return product(dtype, assignment, x.mT) - assignment_sum * codewords


def backward(grad, x, codewords, scale):
    """Return the gradients of x, codewords and scale for ``grad`` (B, K, D)."""
    dtype, (x, codewords), column = x.dtype, centre(x, codewords), scale.unsqueeze(1)
    assignment, x_sq = assign(dtype, x, codewords, scale)
    rounded = operand(dtype, grad)  # (B, K, D)
    grad_assignment = product(dtype, rounded, x) - (
        rounded * codewords).sum(2, keepdim=True)  # (B, K, N)
    mean = (assignment * grad_assignment).sum(1, keepdim=True)  # (B, 1, N)
    grad_logits = assignment * (grad_assignment - mean)  # (B, K, N)
    neg_twice_grad_distance = operand(dtype, -2 * column * grad_logits)  # (B, K, N)
    assignment, grad_logits = operand(dtype, assignment), operand(dtype, grad_logits)
    grad_x = (product(dtype, rounded.mT, assignment)
              + product(dtype, codewords.mT, neg_twice_grad_distance)
              - neg_twice_grad_distance.sum(1, keepdim=True) * x)
    grad_logits_x_sum = product(dtype, grad_logits, x.mT)  # (B, K, D)
    assignment_sum, grad_logits_sum, grad_logits_x_sq_sum = (
        value.sum(2, keepdim=True)
        for value in (assignment, grad_logits, grad_logits * x_sq))  # (B, K, 1)
    grad_codewords = -assignment_sum * grad - 2 * column * (
        grad_logits_x_sum - grad_logits_sum * codewords)
    codeword_sq = codewords.square().sum(1, keepdim=True)  # (K, 1)
    grad_scale = grad_logits_x_sq_sum + codeword_sq * grad_logits_sum - 2 * (
        codewords * grad_logits_x_sum).sum(2, keepdim=True)
    return grad_x.to(dtype), grad_codewords.sum(0), grad_scale.sum((0, 2))
