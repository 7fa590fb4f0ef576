// Elementary functions made of IEEE 754 basic operations alone. The C library's differ in the last
// bit between libraries, and between machines with and without fused multiply-add; these do not.
#pragma once

namespace isthmus::kernels {

/// e^x, off by at most 2 units in the last place. 0 below -708, e^709 above 709; NaN stays NaN.
[[nodiscard]] double portable_exp(double x);

/// ln x of a normal number above 0, off by at most 2 units in the last place, or 2^-53 around 1.
[[nodiscard]] double portable_log(double x);

struct SinCos {
  double sin = 0;
  double cos = 0;
};

/// Sine and cosine of an angle in radians, off by at most 1e-15 for |angle| <= 2^20.
[[nodiscard]] SinCos portable_sin_cos(double angle);

}  // namespace isthmus::kernels
