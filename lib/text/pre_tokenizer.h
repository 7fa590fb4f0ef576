// Cutting text into the pieces inside which byte-level BPE may merge.
#pragma once

#include <isthmus/core/error.h>
#include <memory>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace isthmus::text {

/// Immutable; safe to use from any thread.
class PreTokenizer {
 public:
  /// \param name as in TokenizerSpec.
  /// \returns kUnsupported naming an unknown pre-tokenizer and the known ones.
  [[nodiscard]] static Result<PreTokenizer> make(std::string_view name);

  /// The pieces of valid UTF-8, in order; together they are `text`.
  [[nodiscard]] std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
};

}  // namespace isthmus::text
