#define ISTHMUS_ISA avx512
#define ISTHMUS_VECTOR_BYTES 64
#define ISTHMUS_TILE_OUTPUTS 5
#define ISTHMUS_TILE_ROWS 4
#define ISTHMUS_PACKED_ROWS 8
#define ISTHMUS_SCORE_BLOCKS 2
#define ISTHMUS_MIX_GROUPS 4
#include "dots_avx512.h"
#include "make_table.h"
#include "variants.h"

namespace isthmus::kernels {

constinit const KernelTable kAvx512Kernels = avx512::make_table("avx512");

}  // namespace isthmus::kernels
