// The space of a problem as tables, and exact searches over it.
//
// The space is a tree: placements, each with blocks (front, back and KV bits), each with contexts
// and, independently of them, pairs of codecs. Context decides nothing but memory and codecs decide
// nothing of it, so within a block constraints and objectives fall into two groups that are settled
// apart: a block with 4 contexts and 100 pairs takes 104 looks instead of 400. A placement or a
// block as a whole has bounds: its metrics with the least, and with the most, of each part. Every
// metric grows with every part, so nothing inside is below the one or above the other, rounding
// included, and what the bounds settle is not looked into.
#pragma once

#include <isthmus/planner/planner.h>
#include <functional>
#include <optional>
#include <vector>

#include "parts.h"

namespace isthmus::planner {

/// Whether context decides a metric; otherwise codecs may.
[[nodiscard]] constexpr bool is_contextual(Metric metric) {
  return metric == Metric::kDeviceMemory || metric == Metric::kServerMemory ||
         metric == Metric::kContext;
}

/// What a search minimises and what it may not break.
struct Goal {
  Metric objective = Metric::kToken;
  std::vector<Constraint> constraints;
  /// Minimise the sum of relative excesses over the limits instead, and allow them.
  bool excess = false;

  /// The share of the score that is settled by the context, or by all else.
  [[nodiscard]] double score(const Metrics& metrics, bool contextual) const;
  [[nodiscard]] double score(const Metrics& metrics) const {
    return score(metrics, true) + score(metrics, false);
  }
  [[nodiscard]] bool allows(const Metrics& metrics, bool contextual) const;
  [[nodiscard]] bool needs_prompt() const;
};

/// The least and the most of each metric of several candidates.
struct Bounds {
  Metrics least;
  Metrics most;
};

/// Codec parts at one cut or tail: one for each choice that is possible there, and their bounds.
struct CodecTable {
  std::vector<uint32_t> choices;
  std::vector<CodecPart> parts;
  CodecPart least;
  CodecPart most;
};

/// All candidates with one placement, and with one setting of bits if there is only one part.
struct Block {
  uint32_t placement = 0;
  uint32_t front = 0;
  uint32_t back = 0;
  uint32_t kv = 0;
  BlockPart least;
  BlockPart most;  ///< equal to `least` once bits are set
};

class Space {
 public:
  /// `problem` must be completed, and outlive the space.
  explicit Space(const Problem& problem);

  [[nodiscard]] const Problem& problem() const { return problem_; }
  [[nodiscard]] size_t placement_count() const { return whole_.size(); }
  [[nodiscard]] const Placement& placement(const Block& block) const {
    return placements_[block.placement];
  }
  /// All candidates of a placement together, and its blocks one by one.
  [[nodiscard]] const Block& whole(size_t placement) const { return whole_[placement]; }
  [[nodiscard]] std::vector<Block> blocks(size_t placement) const;

  [[nodiscard]] const CodecTable& up(const Block& block) const;
  [[nodiscard]] const CodecTable& down(const Block& block) const;
  [[nodiscard]] uint64_t pair_count(const Block& block) const {
    return up(block).parts.size() * down(block).parts.size();
  }
  [[nodiscard]] uint64_t blocks_per(const Block& whole) const;

  [[nodiscard]] Bounds bounds(const Block& block, bool with_prompt) const;
  /// Metrics of one pair of codecs in a block with its bits set; without memory and context.
  [[nodiscard]] Metrics timed(const Block& block, const CodecPart& up, const CodecPart& down,
                              bool with_prompt) const;
  /// Metrics that one context decides; the others are 0.
  [[nodiscard]] Metrics contextual(const Block& block, uint32_t context) const;

 private:
  void make_segments();
  void make_codecs();
  [[nodiscard]] BlockPart part(size_t placement, uint32_t front, uint32_t back, uint32_t kv) const;

  const Problem& problem_;
  std::vector<Placement> placements_;
  std::vector<Block> whole_;
  std::vector<SegmentPart> front_;  // [cut + 1, front, kv]; the device alone has cut -1
  std::vector<SegmentPart> tail_;   // [tail + 1, front, kv]; no tail is -1, the device alone 0
  std::vector<SegmentPart> back_;   // [placement, back, kv]
  std::vector<double> loss_;        // [cut + 1, with or without a tail, front, back, kv]
  std::vector<CodecTable> up_;      // [cut + 1]
  std::vector<CodecTable> down_;    // [tail + 1]
  int32_t least_context_ = 0;
  int32_t most_context_ = 0;
};

/// The first candidate with the least score among the placements that are `wanted` (all, when that
/// is empty).
[[nodiscard]] std::optional<Candidate> minimize(
    const Space& space, const Goal& goal, const std::function<bool(const Placement&)>& wanted = {});
[[nodiscard]] Census count(const Space& space);
[[nodiscard]] std::vector<Candidate> pareto_front(const Space& space);

}  // namespace isthmus::planner
