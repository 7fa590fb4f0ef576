#include "engine_flags.h"

#include <cstdint>
#include <limits>

namespace isthmus::tools {

engine::CpuEngineOptions EngineFlags::options() const {
  engine::CpuEngineOptions options;
  options.precision = *engine::find_precision(precision);
  options.kv_bits = kv_bits == 8 ? engine::KvBits::k8 : engine::KvBits::k16;
  options.weights.ranges = {{{0, std::numeric_limits<int32_t>::max()}, weight_bits}};
  options.weights.head_bits = weight_bits;
  return options;
}

void declare_precision(CLI::App& app, EngineFlags& flags) {
  app.add_option("--precision", flags.precision,
                 "fast (packed weights, activations in one byte), fine (in two) or exact (float)")
      ->check(CLI::IsMember({"fast", "fine", "exact"}))
      ->capture_default_str();
}

void declare_storage(CLI::App& app, EngineFlags& flags, const std::string& bits_name) {
  app.add_option("--kv-bits", flags.kv_bits, "of stored keys and values: 16 or 8; not for exact")
      ->check(CLI::IsMember({16, 8}))
      ->capture_default_str();
  app.add_option(bits_name, flags.weight_bits,
                 "most bits of a weight's code here: 8 or 4; types that fit stay as they are; not "
                 "for exact")
      ->check(CLI::IsMember({8, 4}))
      ->capture_default_str();
}

void check(const EngineFlags& flags) {
  if (engine::find_precision(flags.precision)) return;
  throw CLI::ValidationError("--precision is '" + flags.precision +
                             "', --device cpu knows fast, fine and exact");
}

}  // namespace isthmus::tools
