#define ISTHMUS_ISA avx512
#define ISTHMUS_VECTOR_BYTES 64
#define ISTHMUS_TILE_OUTPUTS 5
#define ISTHMUS_TILE_ROWS 4
#include "exact_kernels.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kAvx512Kernels = avx512::make_table("avx512");

}  // namespace isthmus::kernels
