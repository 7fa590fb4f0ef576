#define ISTHMUS_ISA generic
#define ISTHMUS_VECTOR_BYTES 16
#define ISTHMUS_TILE_OUTPUTS 2
#define ISTHMUS_TILE_ROWS 1
#define ISTHMUS_PACKED_ROWS 1
#define ISTHMUS_SCORE_BLOCKS 1
#define ISTHMUS_MIX_GROUPS 1
#include "dots_generic.h"
#include "make_table.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kGenericKernels = generic::make_table("generic");

}  // namespace isthmus::kernels
