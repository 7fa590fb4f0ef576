#include "merges.h"

#include <algorithm>
#include <limits>
#include <string>

namespace isthmus::text {
namespace {

constexpr size_t kNone = std::numeric_limits<size_t>::max();
constexpr int32_t kMergedAway = std::numeric_limits<int32_t>::min();

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Result<MergeRules> MergeRules::make(const TokenizerSpec& spec, const Vocabulary& vocabulary) {
  MergeRules rules;
  rules.spec_ = &spec;
  rules.vocabulary_ = &vocabulary;
  rules.by_score_ = spec.kind == TokenizerKind::kSentencePiece && spec.merges.empty();
  for (const std::string& piece : spec.pieces) {
    rules.longest_piece_ = std::max(rules.longest_piece_, piece.size());
  }
  rules.rules_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const int32_t left_id = vocabulary.find(left);
    const int32_t right_id = vocabulary.find(right);
    const std::string spelled = left + right;
    const int32_t merged = vocabulary.find(spelled);
    if (left_id < 0 || right_id < 0 || merged < 0) {
      return fail(ErrorCode::kCorrupt, "text: merge " + std::to_string(rank) + " of " +
                                           std::to_string(spec.merges.size()) +
                                           " is about a piece that the vocabulary lacks");
    }
    // Some files have merges that spell a control token; ordinary text must not become one.
    if (vocabulary.find_text(spelled) < 0) continue;
    rules.rules_.emplace(pair_key(left_id, right_id), Rule{-static_cast<double>(rank), merged});
  }
  return rules;
}

std::optional<MergeRules::Rule> MergeRules::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return std::nullopt;
  if (by_score_) return find_by_score(left, right);
  const auto found = rules_.find(pair_key(left, right));
  if (found == rules_.end()) return std::nullopt;
  return found->second;
}

std::optional<MergeRules::Rule> MergeRules::find_by_score(int32_t left, int32_t right) const {
  const std::string& first = spec_->pieces[static_cast<size_t>(left)];
  const std::string& second = spec_->pieces[static_cast<size_t>(right)];
  if (first.size() + second.size() > longest_piece_) return std::nullopt;
  const int32_t merged = vocabulary_->find_text(first + second);
  if (merged < 0) return std::nullopt;
  return Rule{spec_->scores[static_cast<size_t>(merged)], merged};
}

void Merger::merge(std::vector<int32_t>& symbols) {
  if (symbols.size() < 2) return;
  nodes_.clear();
  heap_.clear();
  for (size_t i = 0; i < symbols.size(); ++i) {
    nodes_.push_back({symbols[i], i == 0 ? kNone : i - 1, i + 1 == symbols.size() ? kNone : i + 1});
  }
  for (size_t i = 0; i < nodes_.size(); ++i) propose(i);
  while (!heap_.empty()) {
    const Candidate top = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    apply(top);
  }
  symbols.clear();
  for (size_t at = 0; at != kNone; at = nodes_[at].next) symbols.push_back(nodes_[at].id);
}

void Merger::propose(size_t at) {
  if (at == kNone || nodes_[at].next == kNone) return;
  const int32_t left = nodes_[at].id;
  const int32_t right = nodes_[nodes_[at].next].id;
  const auto rule = rules_.find(left, right);
  if (!rule) return;
  heap_.push_back({rule->priority, at, left, right, rule->merged});
  std::push_heap(heap_.begin(), heap_.end());
}

void Merger::apply(const Candidate& candidate) {
  Node& left = nodes_[candidate.at];
  // Either side may have been merged into something else since the candidate was proposed.
  if (left.id != candidate.left || left.next == kNone) return;
  Node& right = nodes_[left.next];
  if (right.id != candidate.right) return;
  left.id = candidate.merged;
  right.id = kMergedAway;
  left.next = right.next;
  if (left.next != kNone) nodes_[left.next].previous = candidate.at;
  propose(left.previous);
  propose(candidate.at);
}

}  // namespace isthmus::text
