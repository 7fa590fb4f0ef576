// The question put to the planner: what is given, what may be chosen, what is wanted.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/evidence.h>
#include <isthmus/planner/profile.h>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::planner {

/// What a user does with the model.
struct Workload {
  int32_t prompt_tokens = 512;
  int32_t reply_tokens = 128;
  int32_t sessions = 1;        ///< devices that share the server at a time, a conversation each
  int32_t chunk_tokens = 128;  ///< most tokens of a prompt in one message
  int32_t chunks_in_flight =
      8;  ///< messages of a prompt under way at a time; a server says how many
  friend bool operator==(const Workload&, const Workload&) = default;
};

/// What may be chosen. Lists are in order of preference: among equals the earlier wins. Empty lists
/// of bits and codecs mean what both profiles know, and of codecs down what rows may come back by.
struct Choices {
  bool local = true;                ///< the whole model on the device
  bool tails = true;                ///< head, and maybe last layers, on the device
  int32_t min_cut = 0;              ///< least layers of the front
  std::vector<int32_t> front_bits;  ///< of front and tail
  std::vector<int32_t> back_bits;
  std::vector<int32_t> kv_bits;   ///< on both sides
  std::vector<int32_t> contexts;  ///< tokens of a conversation; at least one
  std::vector<std::string> codecs_up;
  std::vector<std::string> codecs_down;
  friend bool operator==(const Choices&, const Choices&) = default;
};

/// What a candidate costs. Less is better in every one; cost.h has the formulas.
enum class Metric : uint8_t {
  kToken,         ///< seconds between two tokens of a reply
  kFirstToken,    ///< seconds from a prompt to the first token
  kThroughput,    ///< seconds per token of all sessions together
  kDeviceMemory,  ///< bytes
  kServerMemory,  ///< bytes
  kTraffic,       ///< bytes per token of a reply, both ways
  kEnergy,        ///< joules per token of a reply, on the device
  kQuality,       ///< relative loss of perplexity
  kAttack,        ///< share of tokens that the best attack reads
  kEpsilonPerRow,
  kEpsilonPerPrompt,
  kContext,  ///< tokens, negated: more is better
};
inline constexpr size_t kMetricCount = 12;

/// "token", "first_token", ..., as in files and on command lines.
[[nodiscard]] std::string_view to_string(Metric metric);
/// \returns kInvalidArgument listing the names.
[[nodiscard]] Result<Metric> parse_metric(std::string_view name);

/// A value for each metric; infinity where nothing was measured.
struct Metrics {
  std::array<double, kMetricCount> values = {};
  [[nodiscard]] double operator[](Metric metric) const {
    return values[static_cast<size_t>(metric)];
  }
  [[nodiscard]] double& operator[](Metric metric) { return values[static_cast<size_t>(metric)]; }
  friend bool operator==(const Metrics&, const Metrics&) = default;
};

/// A metric that must not be above a limit. A context of at least 512 is kContext at most -512.
struct Constraint {
  Metric metric = Metric::kDeviceMemory;
  double limit = 0;
  friend bool operator==(const Constraint&, const Constraint&) = default;
};

/// Everything that an answer depends on.
struct Problem {
  MachineProfile device;
  MachineProfile server;
  LinkProfile link;
  Evidence evidence;
  Workload workload;
  Choices choices;
  Metric objective = Metric::kToken;
  std::vector<Constraint> constraints;  ///< at most one for each metric
  std::vector<Metric> axes;             ///< of the Pareto front; empty: no front

  /// Fills empty choices; limits the memories to what is free unless there are other limits, and an
  /// objective that not everything was measured for to finite values; checks that the parts agree.
  /// \returns kModelMismatch for profiles of two models; kTooLarge for more than 2^18 settings of
  /// placement and bits; kInvalidArgument for numbers out of range, choices that a profile does not
  /// know, a constraint given twice or out of the metric's range, quality, privacy or energy asked
  /// for without the data.
  [[nodiscard]] Result<Problem> completed() const;
};

/// Where the layers run.
struct Placement {
  static constexpr int32_t kLocal = -1;  ///< as a cut: the whole model on the device
  static constexpr int32_t kNoTail = -1;
  int32_t cut = 0;         ///< layers [0, cut) on the device, or kLocal
  int32_t tail = kNoTail;  ///< layers [tail, L), norm and head on the device; above the cut

  [[nodiscard]] bool is_local() const { return cut == kLocal; }
  [[nodiscard]] bool has_tail() const { return tail != kNoTail; }
  friend bool operator==(const Placement&, const Placement&) = default;
};

/// All legal placements of a completed problem in the order of preference among equals: whole model
/// on the device, then smaller cuts first, those without a codec left out; for each no tail, then
/// the shortest tail first.
[[nodiscard]] std::vector<Placement> placements(const Problem& problem);

/// One point of the space: a placement and an index into each list of choices. What a placement
/// leaves open is 0: a local one has no back and no codecs, one without a tail no codec down.
/// The codec up is one that crosses at the cut. Candidates are ordered by their members, first to
/// last; among equals the least wins.
struct Candidate {
  uint32_t placement = 0;  ///< index into `placements`
  uint32_t front = 0;
  uint32_t back = 0;
  uint32_t kv = 0;
  uint32_t context = 0;
  uint32_t up = 0;
  uint32_t down = 0;
  // clang-tidy takes the 0 that the compiler compares with for a pointer.
  friend auto operator<=>(const Candidate&,
                          const Candidate&) = default;  // NOLINT(modernize-use-nullptr)
};

}  // namespace isthmus::planner
