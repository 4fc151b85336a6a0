#include "cpu/dnnl.h"

#include <string>

// Weak: a oneDNN that was built without OpenMP has no such symbol.
extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace steepest::STEEPEST_LEVEL {

void dnnlCheck(dnnl_status_t status, const char* what) {
  if (status == dnnl_success) return;
  const char* why = status == dnnl_unimplemented       ? "is not implemented for these shapes"
                    : status == dnnl_invalid_arguments ? "was given wrong arguments"
                    : status == dnnl_out_of_memory     ? "ran out of memory"
                                                       : "failed";
  throw Error(status == dnnl_out_of_memory ? "OUT_OF_MEMORY" : "NATIVE", std::string("oneDNN: ") + what + " " + why);
}

dnnl_engine_t dnnlEngine() {
  static const dnnl_engine_t engine = [] {
    dnnl_engine_t made = nullptr;
    dnnlCheck(dnnl_engine_create(&made, dnnl_cpu, 0), "the engine");
    return made;
  }();
  return engine;
}

dnnl_stream_t dnnlStream() {
  struct Stream {
    dnnl_stream_t handle = nullptr;
    Stream() {
      if (omp_set_num_threads) omp_set_num_threads(1);
      dnnlCheck(dnnl_stream_create(&handle, dnnlEngine(), dnnl_stream_default_flags), "a stream");
    }
    ~Stream() { dnnl_stream_destroy(handle); }
  };
  static thread_local Stream stream;
  return stream.handle;
}

bool dnnlHasBf16() {
  static const bool has = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
  return has;
}

dnnl_data_type_t dnnlType(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return dnnl_f32;
    case DType::bfloat16:
      return dnnl_bf16;
    case DType::int32:
      return dnnl_s32;
    case DType::uint8:
      return dnnl_u8;
    default:
      throw Error("PROGRAM", "oneDNN has no float64");
  }
}

MemoryDesc stridedDesc(DType dtype, std::initializer_list<dnnl_dim_t> dims, std::initializer_list<dnnl_dim_t> strides) {
  dnnl_memory_desc_t made = nullptr;
  dnnlCheck(dnnl_memory_desc_create_with_strides(&made, static_cast<int>(dims.size()), dims.begin(), dnnlType(dtype), strides.begin()),
            "a layout");
  return MemoryDesc(made);
}

MemoryDesc anyDesc(DType dtype, std::initializer_list<dnnl_dim_t> dims) {
  dnnl_memory_desc_t made = nullptr;
  dnnlCheck(dnnl_memory_desc_create_with_tag(&made, static_cast<int>(dims.size()), dims.begin(), dnnlType(dtype), dnnl_format_tag_any),
            "a layout");
  return MemoryDesc(made);
}

PrimitiveAttr dnnlAttr(bool accumulate) {
  dnnl_primitive_attr_t made = nullptr;
  dnnlCheck(dnnl_primitive_attr_create(&made), "attributes");
  PrimitiveAttr attr(made);
  dnnlCheck(dnnl_primitive_attr_set_scratchpad_mode(made, dnnl_scratchpad_mode_user), "attributes");
  dnnlCheck(dnnl_primitive_attr_set_fpmath_mode(made, dnnl_fpmath_mode_strict), "attributes");
  if (accumulate) {
    dnnl_post_ops_t chain = nullptr;
    dnnlCheck(dnnl_post_ops_create(&chain), "attributes");
    const PostOps owned(chain);
    dnnlCheck(dnnl_post_ops_append_sum(chain, 1.0f, 0, dnnl_data_type_undef), "attributes");
    dnnlCheck(dnnl_primitive_attr_set_post_ops(made, chain), "attributes");
  }
  return attr;
}

Primitive::Primitive(PrimitiveDesc desc, std::initializer_list<int> arguments) : desc_(std::move(desc)), arguments_(arguments) {
  dnnl_primitive_t made = nullptr;
  dnnlCheck(dnnl_primitive_create(&made, desc_.get()), "a primitive");
  primitive_.reset(made);
  scratch_ = bytes(DNNL_ARG_SCRATCHPAD);
}

const_dnnl_memory_desc_t Primitive::layout(int argument) const {
  return dnnl_primitive_desc_query_md(desc_.get(), dnnl_query_exec_arg_md, argument);
}

void Primitive::run(std::initializer_list<const void*> data, void* scratch) const {
  constexpr std::size_t kMost = 8;
  struct Handles {
    dnnl_exec_arg_t args[kMost];
    int count = 0;
    void add(int name, const_dnnl_memory_desc_t layout, void* pointer) {
      dnnl_memory_t made = nullptr;
      dnnlCheck(dnnl_memory_create(&made, layout, dnnlEngine(), pointer), "an argument");
      args[count++] = {name, made};
    }
    ~Handles() {
      for (int i = 0; i < count; ++i) dnnl_memory_destroy(args[i].memory);
    }
  } handles;
  std::size_t i = 0;
  for (const void* pointer : data) {
    handles.add(arguments_[i], layout(arguments_[i]), const_cast<void*>(pointer));
    ++i;
  }
  if (scratch_) handles.add(DNNL_ARG_SCRATCHPAD, layout(DNNL_ARG_SCRATCHPAD), scratch);
  dnnlCheck(dnnl_primitive_execute(primitive_.get(), dnnlStream(), handles.count, handles.args), "a primitive");
}

Primitive reorder(const_dnnl_memory_desc_t from, const_dnnl_memory_desc_t to) {
  if (dnnl_memory_desc_equal(from, to)) return {};
  const PrimitiveAttr attr = dnnlAttr(false);
  dnnl_primitive_desc_t made = nullptr;
  dnnlCheck(dnnl_reorder_primitive_desc_create(&made, from, dnnlEngine(), to, dnnlEngine(), attr.get()), "a change of layout");
  return Primitive(PrimitiveDesc(made), {DNNL_ARG_FROM, DNNL_ARG_TO});
}

}  // namespace steepest::STEEPEST_LEVEL
