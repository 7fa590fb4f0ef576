#include "device.h"

#include <ATen/ATen.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <charconv>
#include <filesystem>
#include <new>

namespace isthmus::torch_engine {
namespace {

/// The folder of the libtorch_cpu that this process runs.
std::filesystem::path libtorch_folder() {
  Dl_info info{};
  auto* const any_function = reinterpret_cast<void*>(&at::globalContext);
  if (dladdr(any_function, &info) == 0 || info.dli_fname == nullptr) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

tl::unexpected<Error> no_device(const std::string& name, const std::string& reason) {
  return fail(ErrorCode::kNoDevice, "torch: no device '" + name + "': " + reason);
}

/// Asks the driver for its devices, before half a gigabyte of libtorch_cuda is loaded in vain.
Status check_driver(const std::string& name, int index) {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (driver == nullptr) return no_device(name, "no CUDA driver (libcuda.so.1) is installed");
  // CUresult cuInit(unsigned), CUresult cuDeviceGetCount(int*); CUDA_SUCCESS is 0.
  auto* const init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  auto* const get_count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  int count = 0;
  if (init == nullptr || get_count == nullptr || init(0) != 0 || get_count(&count) != 0) count = 0;
  if (index >= count) {
    return no_device(name,
                     "the CUDA driver knows " + std::to_string(count) + " devices on this machine");
  }
  return {};
}

/// Loads libtorch_cuda for the rest of the process; it registers itself with libtorch. Loading it
/// again does nothing.
Status load_libtorch_cuda(const std::string& name) {
  const std::filesystem::path library = libtorch_folder() / "libtorch_cuda.so";
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* const reason = dlerror();
    return no_device(name, std::string("libtorch's CUDA part does not load: ") +
                               (reason == nullptr ? library.string() : reason));
  }
  if (!c10::impl::hasDeviceGuardImpl(c10::kCUDA)) {
    return no_device(name, "libtorch's CUDA part did not register itself");
  }
  return {};
}

/// N of "cuda:N"; 0 for "cuda".
Result<int> cuda_index(const std::string& name) {
  int index = 0;
  if (name == "cuda") return index;
  const char* const end = name.data() + name.size();
  if (name.starts_with("cuda:")) {
    const auto [stop, error] = std::from_chars(name.data() + 5, end, index);
    if (error == std::errc() && stop == end && index >= 0 && index < 128) return index;
  }
  return fail(ErrorCode::kInvalidArgument,
              "torch: unknown device '" + name + "'; known are cpu, cuda and cuda:N");
}

}  // namespace

Result<c10::Device> open_device(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  ISTHMUS_ASSIGN(const int index, cuda_index(name));
  ISTHMUS_TRY(check_driver(name, index));
  ISTHMUS_TRY(load_libtorch_cuda(name));
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

void finish_work(c10::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
}

Error translate_exception() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return {ErrorCode::kOutOfMemory, std::string("torch: ") + error.what_without_backtrace()};
  } catch (const c10::Error& error) {
    return {ErrorCode::kDeviceFailed, std::string("torch: ") + error.what_without_backtrace()};
  } catch (const std::bad_alloc&) {
    return {ErrorCode::kOutOfMemory, "torch: out of memory"};
  } catch (const std::exception& error) {
    return {ErrorCode::kInternal, std::string("torch: ") + error.what()};
  }
}

}  // namespace isthmus::torch_engine
