// All functions of a variant; its source includes this last.
#pragma once

#include "attention.h"
#include "packed_product.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

constexpr KernelTable make_table(const char* name) {
  return {name,   product,  quantize,  packed_product, store_kv, attend,
          rotate, rms_norm, silu_gate, gelu_gate,      softcap,  exponentiate};
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
