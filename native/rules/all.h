// The rules. A new one is its header and its line in the list; the order is that of the `rule` attribute of the op `update`.
#pragma once

#include "adam.h"
#include "adam_amsgrad.h"
#include "adamw.h"
#include "adamw_amsgrad.h"
#include "lion.h"
#include "sgd.h"
#include "sgd_momentum.h"

#define STEEPEST_RULES(X) \
  X(Sgd)                  \
  X(SgdMomentum)          \
  X(Adam)                 \
  X(AdamAmsgrad)          \
  X(AdamW)                \
  X(AdamWAmsgrad)         \
  X(Lion)
