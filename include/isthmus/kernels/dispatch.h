// Which kernels this machine can run, and which it should.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/kernels/kernel_table.h>
#include <span>
#include <string_view>

namespace isthmus::kernels {

/// The variants that this machine can run, the widest last; never empty.
[[nodiscard]] std::span<const KernelTable* const> available_kernels();

/// The widest variant, or the one that the environment variable ISTHMUS_CPU_ISA names (generic,
/// avx2, avx512, neon). \returns kUnsupported when it names none that this machine can run.
[[nodiscard]] Result<const KernelTable*> select_kernels();

}  // namespace isthmus::kernels
