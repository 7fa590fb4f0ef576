#define ISTHMUS_ISA generic
#define ISTHMUS_TILE_ROWS 2
#define ISTHMUS_TILE_VECTORS 1
#include "klt_kernel.h"
