// The rules. A new one is its header and its line in the list; the order is that of the `rule` attribute of the op `update`.
#pragma once

#include "adabelief.h"
#include "adabelief_amsgrad.h"
#include "adagrad.h"
#include "adam.h"
#include "adam_amsgrad.h"
#include "adamp.h"
#include "adamw.h"
#include "adamw_amsgrad.h"
#include "adamw_hf.h"
#include "diffgrad.h"
#include "lamb.h"
#include "lars.h"
#include "lion.h"
#include "move.h"
#include "sgd.h"
#include "sgd_momentum.h"
#include "sgdp.h"
#include "sign_sgd.h"
#include "signum.h"

#define STEEPEST_RULES(X) \
  X(Sgd)                  \
  X(SgdMomentum)          \
  X(Adam)                 \
  X(AdamAmsgrad)          \
  X(AdamW)                \
  X(AdamWAmsgrad)         \
  X(AdamWHf)              \
  X(Lion)                 \
  X(Adagrad)              \
  X(AdaBelief)            \
  X(AdaBeliefAmsgrad)     \
  X(DiffGrad)             \
  X(AdamP)                \
  X(Sgdp)                 \
  X(Lamb)                 \
  X(Lars)                 \
  X(Move)                 \
  X(SignSgd)              \
  X(Signum)
