// Convolutions of one place in steps of one: products of the weight with planes of channels as they lie, without a change of layout.
#pragma once

#include <memory>

#include "cpu/conv_dnnl.h"

namespace steepest::STEEPEST_LEVEL {

// The kernel of a row whose operands were checked; null where it is no such convolution.
std::unique_ptr<Kernel> pointwiseKernel(const Spec& spec, const ConvShape& shape, ConvPass pass);

// The one of this and of conv_dnnl.h that is faster; null where steepest's own loops are.
std::unique_ptr<Kernel> fastKernel(const Spec& spec, const ConvShape& shape, ConvPass pass);

}  // namespace steepest::STEEPEST_LEVEL
