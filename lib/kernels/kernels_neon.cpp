#define ISTHMUS_ISA neon
#define ISTHMUS_VECTOR_BYTES 16
#define ISTHMUS_TILE_OUTPUTS 2
#define ISTHMUS_TILE_ROWS 2
#define ISTHMUS_PACKED_ROWS 4
#define ISTHMUS_SCORE_BLOCKS 1
#define ISTHMUS_MIX_GROUPS 1
#include "dots_neon.h"
#include "make_table.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kNeonKernels = neon::make_table("neon");

}  // namespace isthmus::kernels
