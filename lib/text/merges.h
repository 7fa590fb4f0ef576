// Byte pair encoding's one step, repeated: of all neighbouring symbols that may be merged, merge
// the pair that comes first by the vocabulary's order (Sennrich, Haddow and Birch 2016).
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "vocabulary.h"

namespace isthmus::text {

/// Which pairs of ids merge, and in which order.
class MergeRules {
 public:
  struct Rule {
    double priority = 0;  ///< higher goes first; of equal ones, the leftmost pair
    int32_t merged = -1;
  };

  MergeRules() = default;
  /// From the spec's merges, or without any, from its scores: then two pieces merge if together
  /// they spell a piece. Borrows both arguments, which must not move.
  /// \returns kCorrupt for a merge of unknown pieces.
  [[nodiscard]] static Result<MergeRules> make(const TokenizerSpec& spec,
                                               const Vocabulary& vocabulary);

  [[nodiscard]] std::optional<Rule> find(int32_t left, int32_t right) const;

 private:
  [[nodiscard]] std::optional<Rule> find_by_score(int32_t left, int32_t right) const;

  const TokenizerSpec* spec_ = nullptr;
  const Vocabulary* vocabulary_ = nullptr;
  bool by_score_ = false;
  size_t longest_piece_ = 0;  // bytes
  std::unordered_map<uint64_t, Rule> rules_;
};

/// Applies merge rules to one run of symbols after another, keeping its memory between them.
class Merger {
 public:
  explicit Merger(const MergeRules& rules) : rules_(rules) {}

  /// Merges `symbols` in place until no rule applies; negative symbols never merge.
  /// O(n log n) in their number, however they merge.
  void merge(std::vector<int32_t>& symbols);

 private:
  struct Node {
    int32_t id;
    size_t previous;
    size_t next;
  };
  struct Candidate {
    double priority;
    size_t at;  // the left node
    int32_t left;
    int32_t right;
    int32_t merged;
    // The order of a heap whose top goes first.
    bool operator<(const Candidate& other) const {
      return priority != other.priority ? priority < other.priority : at > other.at;
    }
  };

  void propose(size_t at);
  void apply(const Candidate& candidate);

  const MergeRules& rules_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace isthmus::text
