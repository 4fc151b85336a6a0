// Steps in float64.
#include "cpu/elementwise.h"

namespace steepest::STEEPEST_LEVEL::ew {

#define ROW(name) loopOf<name##_, vd>(),
const LoopTable doubleLoops = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW

}  // namespace steepest::STEEPEST_LEVEL::ew
