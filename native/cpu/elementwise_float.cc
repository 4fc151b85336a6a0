// Steps in float32.
#include "cpu/elementwise.h"

namespace steepest::STEEPEST_LEVEL::ew {

#define ROW(name) loopOf<name##_, vf>(),
const LoopTable singleLoops = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW

}  // namespace steepest::STEEPEST_LEVEL::ew
