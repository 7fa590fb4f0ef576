// What is trained for a cut, and the names of its tensors.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/adapters.h>
#include <map>
#include <string>
#include <string_view>

namespace isthmus::artefact {

/// Either all of it, or one side's part: the encoder is the device's, the rest the server's.
struct Parts {
  Matrix encoder;            ///< [d, D]
  Matrix decoder;            ///< [D, d]
  Matrix soft_prompt;        ///< [m, D] or empty
  model::Adapters adapters;  ///< of layers behind the cut; empty for none
};

inline constexpr std::string_view kEncoder = "encoder";
inline constexpr std::string_view kDecoder = "decoder";
inline constexpr std::string_view kSoftPrompt = "soft_prompt";
/// What follows the name of the tensor that an adapter changes, as in llama.cpp's adapter files.
inline constexpr std::string_view kDown = ".lora_a";
inline constexpr std::string_view kUp = ".lora_b";

/// By those names, none of them empty.
using NamedMatrices = std::map<std::string, Matrix>;

[[nodiscard]] NamedMatrices to_named(Parts parts);

/// \returns kCorrupt for an unknown name, and for half an adapter.
[[nodiscard]] Result<Parts> to_parts(NamedMatrices&& named);

enum class Half : uint8_t { kBoth, kDevice, kServer };

/// Whose a tensor of this name is: kDevice or kServer; kBoth for none of these names.
[[nodiscard]] Half half_of(std::string_view name);

}  // namespace isthmus::artefact
