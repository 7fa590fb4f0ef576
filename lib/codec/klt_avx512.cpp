#define ISTHMUS_ISA avx512
#define ISTHMUS_VECTOR_BYTES 64
#define ISTHMUS_ROW_VECTORS 4
#define ISTHMUS_TILE_ROWS 4
#define ISTHMUS_TILE_VECTORS 4
#include "klt_kernel.h"
