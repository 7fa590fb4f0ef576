#define ISTHMUS_ISA generic
#define ISTHMUS_VECTOR_BYTES 16
#define ISTHMUS_TILE_OUTPUTS 2
#define ISTHMUS_TILE_ROWS 1
#include "exact_kernels.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kGenericKernels = generic::make_table("generic");

}  // namespace isthmus::kernels
