// Functions of vectors made of fma: the same bits at every dispatch level, no libm.
//
//   exp expm1 log log1p pow tanh sigmoid softplus    exponential.h
//   erf gelu geluTanh silu relu and their slopes     activations.h
//   sin cos                                          trigonometric.h
//
// All are templates over V = vf or vd. Bounds, held against long double in test/native/functions.cc, in units in the last place of the
// exact result, float32 and float64 alike: 1 for log, log1p, sin, cos; 1.2 for exp; 2 for expm1, erf, softplus, pow; 3 for tanh, sigmoid,
// silu; 5 for gelu, in the lower tail too; 4 + 2 |2u| for geluTanh, u the argument of its tanh; 3 of the slope plus 1 for the slopes.
// Special values are those of C99 (activations take their limits); subnormal arguments and results are not flushed.
#pragma once

#include "math/activations.h"
#include "math/exponential.h"
#include "math/trigonometric.h"
