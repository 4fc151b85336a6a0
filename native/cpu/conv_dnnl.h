// Convolutions by oneDNN: one-threaded primitives on data with the channels last, for groups of so many channels that the changes of layout
// around them cost less than they gain.
#pragma once

#include <memory>

#include "cpu/conv_shape.h"
#include "cpu/dnnl.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

enum class ConvPass { forward, input, weight };

// [images, inputs, in] with `outputs` kernels, in one group. The arguments of run() are, by pass: source, weights, output (and bias); the
// output's gradient, weights, gradient of the source; source, the output's gradient, gradients of weights (and bias), which are float32.
Primitive libraryConv(ConvPass pass, const ConvShape& shape, DType dtype, std::int64_t images, std::int64_t inputs, std::int64_t outputs,
                      bool bias);

// The kernel of a row whose operands were checked; null where steepest's own loops are faster or the library has none.
std::unique_ptr<Kernel> libraryKernel(const Spec& spec, const ConvShape& shape, ConvPass pass);

}  // namespace steepest::STEEPEST_LEVEL
