// From a device's name to a libtorch device that is known to work.
#pragma once

#include <c10/core/Device.h>
#include <isthmus/core/error.h>
#include <string>

namespace isthmus::torch_engine {

/// Understands "cpu", "cuda" and "cuda:N"; for CUDA, loads libtorch_cuda and looks for the device.
/// \returns kInvalidArgument for another name, kNoDevice.
[[nodiscard]] Result<c10::Device> open_device(const std::string& name);

/// Waits until the device has done all that it was told to. Throws what libtorch throws.
void finish_work(c10::Device device);

/// What a call into libtorch threw, as an error. Call it from a catch block.
[[nodiscard]] Error translate_exception();

/// Calls what may throw out of libtorch and returns a Result or a Status.
template <typename Call>
auto guarded(Call call) -> decltype(call()) {
  try {
    return call();
  } catch (...) {
    return tl::unexpected<Error>(translate_exception());
  }
}

}  // namespace isthmus::torch_engine
