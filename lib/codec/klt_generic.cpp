#define ISTHMUS_ISA generic
#define ISTHMUS_VECTOR_BYTES 16
#define ISTHMUS_ROW_VECTORS 8
#define ISTHMUS_TILE_ROWS 2
#define ISTHMUS_TILE_VECTORS 4
#include "klt_kernel.h"
