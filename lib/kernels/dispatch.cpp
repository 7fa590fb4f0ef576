#include <isthmus/kernels/dispatch.h>

#include <array>
#include <cstdlib>
#include <string>

#include "variants.h"

#ifdef ISTHMUS_X86_KERNELS
#include <cpuid.h>
#endif
#ifdef ISTHMUS_ARM_KERNELS
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace isthmus::kernels {
namespace {

#ifdef ISTHMUS_X86_KERNELS
// In order of width, so that the machine's are the first ones.
constexpr std::array<const KernelTable*, 3> kVariants = {&kGenericKernels, &kAvx2Kernels,
                                                         &kAvx512Kernels};

/// clang 14's __builtin_cpu_supports does not know it.
bool has_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

size_t supported_count() {
  if (!__builtin_cpu_supports("avx2") || !has_f16c()) return 1;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  return avx512 ? 3 : 2;
}
#elif defined(ISTHMUS_ARM_KERNELS)
constexpr std::array<const KernelTable*, 2> kVariants = {&kGenericKernels, &kNeonKernels};

size_t supported_count() {
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0 ? 2 : 1;
}
#else
constexpr std::array<const KernelTable*, 1> kVariants = {&kGenericKernels};

size_t supported_count() {
  return 1;
}
#endif

}  // namespace

std::span<const KernelTable* const> available_kernels() {
  return std::span(kVariants).first(supported_count());
}

Result<const KernelTable*> select_kernels() {
  const auto available = available_kernels();
  const char* wanted = std::getenv("ISTHMUS_CPU_ISA");
  if (wanted == nullptr) return available.back();
  std::string names;
  for (const KernelTable* table : available) {
    if (std::string_view(wanted) == table->name) return table;
    names += std::string(names.empty() ? "" : ", ") + table->name;
  }
  return fail(ErrorCode::kUnsupported, "kernels: ISTHMUS_CPU_ISA is '" + std::string(wanted) +
                                           "' but this machine runs " + names);
}

}  // namespace isthmus::kernels
