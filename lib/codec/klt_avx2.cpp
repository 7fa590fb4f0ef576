#define ISTHMUS_ISA avx2
#define ISTHMUS_TILE_ROWS 4
#define ISTHMUS_TILE_VECTORS 1
#include "klt_kernel.h"
