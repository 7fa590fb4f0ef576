// What tells one model from another: the root of a hash tree over its config and its tensors as
// they lie in the file, so that a device that holds only some layers can tell too.
//
//   tensor       H("tensor" | its name, type, shape and bytes)
//   part         H("part" | its tensors, in the order of their names)
//   config       H("config" | ModelConfig's numbers and traits that change results, in their order)
//   fingerprint  H("model" | shared part | embedding | head | layer 0 | layer 1 | ... | config)
//
// H is BLAKE2b with 256 bits (RFC 7693). Names are GGUF's; lengths go before what varies in length,
// numbers are 64-bit little-endian, floats their bits. The head is the final norm and, unless it is
// the embedding table, the LM head; the shared part is what belongs to all (rope_freqs.weight).
//
// A slice carries the digests of all parts of its source: what it holds is checked against them,
// and the root follows. Not in it: the architecture's name and the length of text a model was
// trained for, which change no result, and how an engine stores the weights.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/model/model_file.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::model {

/// The root of the tree.
struct Fingerprint {
  Digest digest{};
  /// 64 hexadecimal digits.
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

/// The fingerprint of the whole model that `file` is, or is a slice of. Reads all its tensors,
/// about 1 GB a second on each thread of `pool`, and lets go of their pages again. \returns
/// kCorrupt naming the part of a slice that is not the one it was cut from, kUnsupported for a
/// slice that does not carry the digests of its source.
[[nodiscard]] Result<Fingerprint> fingerprint(const ModelFile& file, ThreadPool& pool);

/// The digests of a model's parts: shared, embedding, head, and each layer.
/// \returns the errors of `fingerprint`.
[[nodiscard]] Result<std::vector<Digest>> part_digests(const ModelFile& file, ThreadPool& pool);

}  // namespace isthmus::model
