#include <isthmus/artefact/parts.h>

#include <utility>

namespace isthmus::artefact {
namespace {

/// Where a matrix of this name belongs, made if it is an adapter's; null for an unknown name.
Matrix* place_of(const std::string& name, Parts& parts) {
  if (name == kEncoder) return &parts.encoder;
  if (name == kDecoder) return &parts.decoder;
  if (name == kSoftPrompt) return &parts.soft_prompt;
  const auto adapter = [&](std::string_view ending) -> model::LowRank& {
    return parts.adapters[name.substr(0, name.size() - ending.size())];
  };
  if (name.ends_with(kDown)) return &adapter(kDown).down;
  if (name.ends_with(kUp)) return &adapter(kUp).up;
  return nullptr;
}

}  // namespace

NamedMatrices to_named(Parts parts) {
  NamedMatrices named;
  const auto add = [&named](std::string name, Matrix& matrix) {
    if (!matrix.empty()) named.emplace(std::move(name), std::move(matrix));
  };
  add(std::string(kEncoder), parts.encoder);
  add(std::string(kDecoder), parts.decoder);
  add(std::string(kSoftPrompt), parts.soft_prompt);
  for (auto& [name, adapter] : parts.adapters) {
    add(name + std::string(kDown), adapter.down);
    add(name + std::string(kUp), adapter.up);
  }
  return named;
}

Result<Parts> to_parts(NamedMatrices&& named) {
  Parts parts;
  for (auto& [name, matrix] : named) {
    Matrix* const place = place_of(name, parts);
    if (place == nullptr)
      return fail(ErrorCode::kCorrupt, "artefact: it has an unknown tensor '" + name + "'");
    *place = std::move(matrix);
  }
  for (const auto& [name, adapter] : parts.adapters) {
    if (adapter.down.empty() || adapter.up.empty())
      return fail(ErrorCode::kCorrupt, "artefact: half the adapter of '" + name + "' is missing");
  }
  return parts;
}

Half half_of(std::string_view name) {
  if (name == kEncoder) return Half::kDevice;
  const bool is_server =
      name == kDecoder || name == kSoftPrompt || name.ends_with(kDown) || name.ends_with(kUp);
  return is_server ? Half::kServer : Half::kBoth;
}

}  // namespace isthmus::artefact
