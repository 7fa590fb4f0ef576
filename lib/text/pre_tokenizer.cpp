#define PCRE2_CODE_UNIT_WIDTH 8

#include "pre_tokenizer.h"

#include <pcre2.h>
#include <limits>
#include <new>
#include <string>

// Unicode's White_Space, for use inside a character class. PCRE2's own \s holds U+180E too, which
// is not white space since Unicode 6.3.
#define WHITE                                                                  \
  "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}" \
  "\\x{202f}\\x{205f}\\x{3000}"
#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"

namespace isthmus::text {
namespace {

struct Pattern {
  std::string_view name;
  const char* regex;
};

// The published patterns with their \s written out. Each matches at every position of any text.
constexpr Pattern kPatterns[] = {
    {"gpt2", CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^" WHITE "\\p{L}\\p{N}]+"
                          "|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"},
    // Published as two steps: every numeral alone, then gpt2 within what lies between them.
    {"smollm", "\\p{N}|" CONTRACTIONS "| ?\\p{L}+| ?[^" WHITE "\\p{L}\\p{N}]+"
               "|[" WHITE "]+(?![^" WHITE "\\p{N}])|[" WHITE "]+"},
    {"llama-bpe", "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                  "| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n]*|[" WHITE "]*[\\r\\n]+"
                  "|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"},
    {"qwen2", "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
              "| ?[^" WHITE "\\p{L}\\p{N}]+[\\r\\n]*|[" WHITE "]*[\\r\\n]+"
              "|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"},
};

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

void PreTokenizer::FreeCode::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

Result<PreTokenizer> PreTokenizer::make(std::string_view name) {
  std::string known;
  for (const Pattern& pattern : kPatterns) {
    known += (known.empty() ? "" : ", ") + std::string(pattern.name);
    if (pattern.name != name) continue;
    int error = 0;
    PCRE2_SIZE offset = 0;
    PreTokenizer made;
    made.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.regex),
                                   PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset,
                                   nullptr));
    if (!made.code_) {
      return fail(ErrorCode::kInternal, "text: the pattern of pre-tokenizer '" + std::string(name) +
                                            "' does not compile (" + std::to_string(error) + ")");
    }
    return made;
  }
  return fail(ErrorCode::kUnsupported, "text: unknown pre-tokenizer '" +
                                           std::string(name.substr(0, 64)) + "' (known: " + known +
                                           ")");
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatch> context(
      pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  // No pattern backtracks more than once over a run of characters, so a match takes steps and
  // memory linear in its length; PCRE2's limits are for patterns of unknown origin.
  pcre2_set_match_limit(context.get(), std::numeric_limits<uint32_t>::max());
  pcre2_set_heap_limit(context.get(), std::numeric_limits<uint32_t>::max());
  std::vector<std::string_view> pieces;
  for (size_t at = 0; at < text.size();) {
    const int found =
        pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                    PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, data.get(), context.get());
    if (found < 1) throw std::bad_alloc();  // every position matches: only memory can be short
    const size_t end = pcre2_get_ovector_pointer(data.get())[1];
    pieces.push_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

}  // namespace isthmus::text
