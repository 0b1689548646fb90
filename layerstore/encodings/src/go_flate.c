#include "encoder.h"

const encoder_kind go_flate_kind = {"go-flate", 1, 0, 9, NULL, NULL, NULL, 0, 0};
