// The plain interface of the cross entropy of upsampled logits: no torch, no CUDA
// header.
//
// Everything is a contiguous device array: logits (B, C, h, w) in their type,
// labels (B, H, W) int64 or uint8, and maps (B, H, W).
#pragma once

#include <cstdint>

#include "encode.h"  // Type

namespace encstdc {

struct LossShape {
  Type type;
  int batch, channels;             // B, C
  int rows, columns;               // h, w of the logits
  int label_rows, label_columns;   // H, W
  bool byte_labels;                // uint8; else int64
  bool align_corners;
  int64_t ignore_index;
};

// How a launch cuts its work up. See README.md.
struct LossPlan {
  int strip;   // rows of labels that a thread takes at once; 0: not supported
  int groups;  // strips for the rows between two rows of logits
  int tiles;   // of columns of labels
  int width;   // most columns of logits under a tile
  int chunk;   // channels in shared memory at once
  int blocks;
  int bytes;   // shared memory of a block
  int64_t workspace;  // bytes of device memory beside arguments and results
};

// Labels at least as large as the logits; sizes, and logits of a channel, from 1 to
// 2^22, and less than 2^30 logits in an image.
LossPlan plan(const LossShape& shape, bool backward);

// Both return nullptr, or what went wrong. `hits` are bytes of 0 or 1.
const char* forward(const LossShape& shape, const LossPlan& plan,
                    const void* logits, const void* labels, float* losses,
                    uint8_t* hits, float* normaliser, void* stream);
// The gradient is in the type of the logits.
const char* backward(const LossShape& shape, const LossPlan& plan,
                     const float* grad, const void* logits, const void* labels,
                     const float* normaliser, void* grad_logits, void* workspace,
                     void* stream);

}  // namespace encstdc
