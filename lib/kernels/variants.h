// The tables of the variants that this build has, one per source kernels_<name>.cpp.
#pragma once

#include <isthmus/kernels/kernel_table.h>

namespace isthmus::kernels {

extern const KernelTable kGenericKernels;  ///< what the compiler's baseline gives: SSE2, NEON
extern const KernelTable kAvx2Kernels;     ///< x86-64 only
extern const KernelTable kAvx512Kernels;   ///< x86-64 only, with VNNI
extern const KernelTable kNeonKernels;     ///< AArch64 only, with the dot product

}  // namespace isthmus::kernels
