#include "core/half.h"
#include "kernels/convert/convert.h"

namespace lutra {

namespace {

template <float (*Widen)(uint16_t)>
void widen(const uint16_t* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = Widen(x[i]);
}

template <uint16_t (*Narrow)(float)>
void narrow(const float* x, uint16_t* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = Narrow(x[i]);
}

}  // namespace

const ConvertKernels convert_scalar = {"scalar", widen<half_to_float>, widen<bfloat16_to_float>, narrow<float_to_half>,
                                       narrow<float_to_bfloat16>};

}  // namespace lutra
