// oneDNN's C interface with owners, for products and convolutions. Every primitive here is run by one thread.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL {

// Throws Error("NATIVE") that says what failed.
void dnnlCheck(dnnl_status_t status, const char* what);

// The CPU engine; never destroyed, since a native thread may outlive the process's static objects.
dnnl_engine_t dnnlEngine();

// This thread's stream. The first call on a thread also tells OpenMP to use one thread here: pool workers are told when they start,
// but thread 0 of a pool is whoever called it.
dnnl_stream_t dnnlStream();

// True where the CPU multiplies bfloat16 itself; elsewhere bf16 operands are widened before they reach oneDNN.
bool dnnlHasBf16();

dnnl_data_type_t dnnlType(DType dtype);

template <class T, dnnl_status_t (*Destroy)(T)>
struct DnnlDelete {
  using pointer = T;
  void operator()(T handle) const { Destroy(handle); }
};
using MemoryDesc = std::unique_ptr<dnnl_memory_desc, DnnlDelete<dnnl_memory_desc_t, dnnl_memory_desc_destroy>>;
using PrimitiveDesc = std::unique_ptr<dnnl_primitive_desc, DnnlDelete<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>>;
using PrimitiveAttr = std::unique_ptr<dnnl_primitive_attr, DnnlDelete<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy>>;
using PostOps = std::unique_ptr<dnnl_post_ops, DnnlDelete<dnnl_post_ops_t, dnnl_post_ops_destroy>>;

// A tensor with strides in elements, or in the layout that a primitive chooses.
MemoryDesc stridedDesc(DType dtype, std::initializer_list<dnnl_dim_t> dims, std::initializer_list<dnnl_dim_t> strides);
MemoryDesc anyDesc(DType dtype, std::initializer_list<dnnl_dim_t> dims);

// Scratch given by the caller, strict float32; with `accumulate` the result is added to what the destination holds.
PrimitiveAttr dnnlAttr(bool accumulate);

// A primitive with the arguments that it takes, in the order in which run() gets them.
class Primitive {
 public:
  Primitive() = default;
  // `arguments` are DNNL_ARG_* names. Takes the scratch that the primitive asks for as its own.
  Primitive(PrimitiveDesc desc, std::initializer_list<int> arguments);

  explicit operator bool() const { return primitive_ != nullptr; }
  std::size_t scratch() const { return scratch_; }
  // The layout of one argument.
  const_dnnl_memory_desc_t layout(int argument) const;
  std::size_t bytes(int argument) const { return dnnl_memory_desc_get_size(layout(argument)); }

  // On this thread; `scratch` has at least scratch() bytes.
  void run(std::initializer_list<const void*> data, void* scratch) const;

 private:
  std::unique_ptr<dnnl_primitive, DnnlDelete<dnnl_primitive_t, dnnl_primitive_destroy>> primitive_;
  PrimitiveDesc desc_;
  std::vector<int> arguments_;
  std::size_t scratch_ = 0;
};

// Copies between two layouts of the same tensor; empty where they are equal.
Primitive reorder(const_dnnl_memory_desc_t from, const_dnnl_memory_desc_t to);

}  // namespace steepest::STEEPEST_LEVEL
