#define ISTHMUS_ISA avx2
#define ISTHMUS_VECTOR_BYTES 32
#define ISTHMUS_ROW_VECTORS 8
#define ISTHMUS_TILE_ROWS 4
#define ISTHMUS_TILE_VECTORS 2
#include "klt_kernel.h"
