// Runs one op of the table by its CPU kernel and by its CUDA kernel on fibers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <cuda_runtime.h>

#include "check.h"
#include "cuda/table.h"
#include "ops.gen.h"
#include "run_op.h"

// Fills the outputs by the CUDA kernel; gives the fault. What is to be written in place is the same place in both lists: `alias[i]` is the
// input that output i lies on, or −1.
inline int runCuda(steepest::Op op, std::vector<Array>& in, std::vector<Array>& out, const std::vector<double>& attrs,
                   const std::vector<int>& alias = {}, int fault = 0) {
  std::vector<steepest::View> ins, outs;
  for (Array& a : in) ins.push_back(a.view);
  for (Array& a : out) outs.push_back(a.view);
  const auto kernel = steepest::cuda::kernels()[static_cast<std::size_t>(op)]({ins, outs, attrs, 1});
  for (std::size_t i = 0; i < in.size(); ++i) ins[i].data = in[i].bytes.data();
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool over = i < alias.size() && alias[i] >= 0;
    outs[i].data = over ? in[static_cast<std::size_t>(alias[i])].bytes.data() : out[i].bytes.data();
  }
  // Exactly as many bytes as were asked for, so that a sanitizer sees what goes beyond.
  std::vector<std::byte> scratch(kernel->workspace, std::byte{0xCD});
  steepest::Pool pool(1);
  std::atomic<int> unused{0};
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  kernel->run({ins, outs, scratch.data(), pool, unused, nullptr, stream, &fault});
  const cudaError_t status = cudaStreamSynchronize(stream);
  if (status != cudaSuccess) std::printf("%s\n", cudaGetErrorString(status));
  CHECK(status == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  for (std::size_t i = 0; i < alias.size(); ++i) {
    if (alias[i] >= 0) out[i].bytes = in[static_cast<std::size_t>(alias[i])].bytes;
  }
  return fault;
}

struct Both {
  std::vector<Array> cpu, cuda;
  int cpuFault, cudaFault;
  bool equal() const {
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      if (cpu[i].bytes != cuda[i].bytes) return false;
    }
    return cpuFault == cudaFault;
  }
};

inline Both runBoth(steepest::Op op, const std::vector<Array>& in, const std::vector<Array>& out, const std::vector<double>& attrs,
                    const std::vector<int>& alias = {}) {
  Both r{out, out, 0, 0};
  std::vector<Array> a = in, b = in;
  r.cpuFault = runOp(steepest::levels().back(), op, a, r.cpu, attrs, 1);
  r.cudaFault = runCuda(op, b, r.cuda, attrs, alias);
  return r;
}

inline double numberAt(const Array& a, std::int64_t i) {
  const auto at = static_cast<std::size_t>(i);
  switch (a.view.dtype) {
    case steepest::DType::float32:
      return a.as<float>()[at];
    case steepest::DType::float64:
      return a.as<double>()[at];
    case steepest::DType::bfloat16: {
      const std::uint32_t wide = static_cast<std::uint32_t>(a.as<steepest::bf16>()[at].bits) << 16;
      float x;
      std::memcpy(&x, &wide, 4);
      return x;
    }
    case steepest::DType::int32:
      return a.as<std::int32_t>()[at];
    default:
      return a.as<std::uint8_t>()[at];
  }
}

inline void setNumber(Array& a, std::int64_t i, double x) {
  const auto at = static_cast<std::size_t>(i);
  std::byte* to = a.bytes.data() + at * steepest::sizeOf(a.view.dtype);
  const auto put = [&](auto v) { std::memcpy(to, &v, sizeof v); };
  switch (a.view.dtype) {
    case steepest::DType::float32:
      return put(static_cast<float>(x));
    case steepest::DType::float64:
      return put(x);
    case steepest::DType::bfloat16: {
      const float f = static_cast<float>(x);
      std::uint32_t u;
      std::memcpy(&u, &f, 4);
      return put(static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16));
    }
    case steepest::DType::int32:
      return put(static_cast<std::int32_t>(x));
    default:
      return put(static_cast<std::uint8_t>(x));
  }
}

inline Array normalArray(steepest::DType dtype, const std::vector<std::int64_t>& shape, unsigned seed, double scale = 1, double mean = 0) {
  Array a = Array::empty(dtype, shape);
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(mean, scale);
  for (std::int64_t i = 0; i < a.view.size(); ++i) setNumber(a, i, draw(random));
  return a;
}

// The largest difference over the largest number of the CPU's output; infinite where one of them alone is not finite.
inline double apart(const Both& r) {
  double worst = 0;
  for (std::size_t o = 0; o < r.cpu.size(); ++o) {
    double size = 1e-30, error = 0;
    for (std::int64_t i = 0; i < r.cpu[o].view.size(); ++i) {
      const double a = numberAt(r.cpu[o], i), b = numberAt(r.cuda[o], i);
      if (std::isfinite(a)) size = std::max(size, std::abs(a));
      if (a == b || (a != a && b != b)) continue;
      const double d = std::abs(a - b);
      error = d <= error ? error : d;
    }
    const double share = error / size;
    worst = share <= worst ? worst : share;
  }
  return r.cpuFault == r.cudaFault ? worst : 1e300;
}
