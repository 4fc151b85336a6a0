// Leaving one stack for another, with what AddressSanitizer has to be told of it.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace steepest::fibers {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 512 << 10;
#else
constexpr std::size_t kStackBytes = 128 << 10;
#endif

struct Context {
  void* stackPointer = nullptr;
#if !defined(__x86_64__)
  ucontext_t machine{};
#endif
  // Of AddressSanitizer: the fake stack, and where the stack lies (of the main context: as the system gave it).
  void* fake = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
};

#if defined(__x86_64__)
extern "C" void steepestSwitch(void** from, void* to);
asm(R"(
.text
.type steepestSwitch, @function
.hidden steepestSwitch
.globl steepestSwitch
steepestSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size steepestSwitch, .-steepestSwitch
)");
#endif

inline Context* mainContext = nullptr;

// Makes a context that begins at `entry` on an empty stack.
inline void prepare(Context& context, std::byte* stack, void (*entry)()) {
  context.bottom = stack;
  context.size = kStackBytes;
  context.fake = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  // A launch that was given up may have left it poisoned.
  __asan_unpoison_memory_region(stack + 4096, kStackBytes - 4096);
#endif
#if defined(__x86_64__)
  auto** top = reinterpret_cast<void**>(stack + kStackBytes - 64);
  *--top = nullptr;  // where `entry` would return to: it never does
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stackPointer = top;
#else
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = stack;
  context.machine.uc_stack.ss_size = kStackBytes;
  context.machine.uc_link = nullptr;
  makecontext(&context.machine, entry, 0);
#endif
}

inline void jump(Context& from, Context& to) {
#if defined(__x86_64__)
  steepestSwitch(&from.stackPointer, to.stackPointer);
#else
  swapcontext(&from.machine, &to.machine);
#endif
}

// From the scheduler into a fiber; returns when that leaves.
inline void enter(Context& main, Context& fiber) {
  mainContext = &main;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&main.fake, fiber.bottom, fiber.size);
#endif
  jump(main, fiber);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(main.fake, nullptr, nullptr);
#endif
}

// The first thing that a fiber does.
inline void arrived([[maybe_unused]] Context& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &mainContext->bottom, &mainContext->size);
#endif
}

// From a fiber back to the scheduler; returns when the fiber is entered again.
inline void leave(Context& fiber, Context& main) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.fake, main.bottom, main.size);
#endif
  jump(fiber, main);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake, &main.bottom, &main.size);
#endif
}

[[noreturn]] inline void finish(Context& fiber, Context& main) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, main.bottom, main.size);
#endif
  jump(fiber, main);
  __builtin_unreachable();
}

}  // namespace steepest::fibers
