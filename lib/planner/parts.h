// The parts that a candidate's cost is made of. Each depends on few of the choices, so a search can
// keep them in tables, and bounds follow from the least or the most of each part: every metric
// grows with every number here.
#pragma once

#include <isthmus/planner/cost.h>
#include <isthmus/planner/problem.h>
#include <algorithm>
#include <cstdint>

namespace isthmus::planner {

/// A number for each of the three kinds of step: a decoded token, a full chunk of the prompt, and
/// its last one.
struct PerStep {
  double token = 0;
  double full = 0;
  double last = 0;

  template <typename Visit>
  static void zip(PerStep& a, const PerStep& b, const Visit& visit) {
    visit(a.token, b.token);
    visit(a.full, b.full);
    visit(a.last, b.last);
  }
};

/// What one segment decides.
struct SegmentPart {
  PerStep seconds;
  double bytes = 0;            ///< without caches
  double bytes_per_token = 0;  ///< of caches
};

/// What placement and precisions decide.
struct BlockPart {
  PerStep front;
  PerStep back;
  PerStep tail;
  double weight_loss = 0;
  double device_bytes = 0;  ///< without caches
  double server_bytes = 0;
  double device_bytes_per_token = 0;
  double server_bytes_per_token = 0;  ///< of all sessions

  template <typename Visit>
  static void zip(BlockPart& a, const BlockPart& b, const Visit& visit) {
    PerStep::zip(a.front, b.front, visit);
    PerStep::zip(a.back, b.back, visit);
    PerStep::zip(a.tail, b.tail, visit);
    visit(a.weight_loss, b.weight_loss);
    visit(a.device_bytes, b.device_bytes);
    visit(a.server_bytes, b.server_bytes);
    visit(a.device_bytes_per_token, b.device_bytes_per_token);
    visit(a.server_bytes_per_token, b.server_bytes_per_token);
  }
};

/// What a codec decides at one cut, in either direction. The privacy of the direction down is not a
/// server's to break: 0.
struct CodecPart {
  PerStep encode;
  PerStep send;
  PerStep decode;
  double token_bytes = 0;
  double loss = 0;
  double attack = 0;
  double epsilon_per_row = 0;
  double epsilon_per_prompt = 0;

  template <typename Visit>
  static void zip(CodecPart& a, const CodecPart& b, const Visit& visit) {
    PerStep::zip(a.encode, b.encode, visit);
    PerStep::zip(a.send, b.send, visit);
    PerStep::zip(a.decode, b.decode, visit);
    visit(a.token_bytes, b.token_bytes);
    visit(a.loss, b.loss);
    visit(a.attack, b.attack);
    visit(a.epsilon_per_row, b.epsilon_per_row);
    visit(a.epsilon_per_prompt, b.epsilon_per_prompt);
  }
};

/// Makes every number of `a` the lesser, or the greater, of it and that of `b`.
template <typename Part>
void take_least(Part& a, const Part& b) {
  Part::zip(a, b, [](double& x, double y) { x = std::min(x, y); });
}
template <typename Part>
void take_most(Part& a, const Part& b) {
  Part::zip(a, b, [](double& x, double y) { x = std::max(x, y); });
}

/// How a prompt is cut.
struct Chunks {
  int32_t full_count = 0;
  double full_tokens = 0;
  double full_position = 0;  ///< mean over the full chunks
  double last_tokens = 0;
  double last_position = 0;
};
[[nodiscard]] Chunks chunks_of(const Workload& work);

// `front`, `back`, `kv`, `up` and `down` are indices into the lists of choices. Where a placement
// has no such segment, its part is 0.
[[nodiscard]] SegmentPart front_part(const Problem& problem, const Placement& placement,
                                     uint32_t front, uint32_t kv);
[[nodiscard]] SegmentPart back_part(const Problem& problem, const Placement& placement,
                                    uint32_t back, uint32_t kv);
[[nodiscard]] SegmentPart tail_part(const Problem& problem, const Placement& placement,
                                    uint32_t front, uint32_t kv);
/// Infinite where it was not evaluated.
[[nodiscard]] double weight_loss(const Problem& problem, const Placement& placement, uint32_t front,
                                 uint32_t back, uint32_t kv);
[[nodiscard]] BlockPart make_block(const Problem& problem, const Placement& placement,
                                   const SegmentPart& front, const SegmentPart& back,
                                   const SegmentPart& tail, double weight_loss);
/// Not for the device alone.
[[nodiscard]] CodecPart up_part(const Problem& problem, int32_t cut, uint32_t up);
/// What comes back: rows for a tail, or an answer without any.
[[nodiscard]] CodecPart down_part(const Problem& problem, const Placement& placement,
                                  uint32_t down);

/// `predict` where the placement has been found already.
[[nodiscard]] Prediction predict(const Problem& problem, const Placement& placement,
                                 const Candidate& candidate);

/// Steps of the three kinds.
[[nodiscard]] StepCost token_step(const Problem& problem, bool local, const BlockPart& block,
                                  const CodecPart& up, const CodecPart& down);

/// Adds what context decides.
void set_memory(const BlockPart& block, int32_t context, Metrics& metrics);
/// Everything else; the time to the first token only `with_prompt`.
[[nodiscard]] Metrics timed_metrics(const Problem& problem, bool local, const BlockPart& block,
                                    const CodecPart& up, const CodecPart& down, bool with_prompt);

}  // namespace isthmus::planner
