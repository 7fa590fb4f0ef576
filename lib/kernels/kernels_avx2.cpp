#define ISTHMUS_ISA avx2
#define ISTHMUS_VECTOR_BYTES 32
#define ISTHMUS_TILE_OUTPUTS 4
#define ISTHMUS_TILE_ROWS 1
#define ISTHMUS_PACKED_ROWS 4
#define ISTHMUS_SCORE_BLOCKS 1
#define ISTHMUS_MIX_GROUPS 4
#include "dots_avx2.h"
#include "make_table.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kAvx2Kernels = avx2::make_table("avx2");

}  // namespace isthmus::kernels
